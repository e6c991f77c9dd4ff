// SPDX-License-Identifier: Apache-2.0
// The files of a PEFT adapter: adapter_config.json, adapter_model.safetensors and the model card.
// Tensors are written and read by an explicit list of names and shapes that follows from the base's
// config.json and the rank (S3): what is not on the list, or is missing from it, stops the work.
#ifndef BALLAST_COMMON_ARTIFACT_ADAPTER_FOLDER_H_
#define BALLAST_COMMON_ARTIFACT_ADAPTER_FOLDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ballast::artifact {

// The linear modules of a layer that an adapter may change, as PEFT names them, sorted.
const std::vector<std::string>& AdapterTargetModules();

// One tensor that an adapter has.
struct AdapterTensorSpec {
  std::string name;            // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
  std::vector<int64_t> shape;  // A: [rank, in]; B: [out, rank]
};

// The tensors of an adapter of `rank` on the Llama-family model that `config_json` describes,
// sorted by name: A and B of the seven modules of each layer. INVALID_ARGUMENT as
// ParseModelConfig, and ADAPTER_CONFIG_INVALID for a rank that cannot be.
absl::StatusOr<std::vector<AdapterTensorSpec>> AdapterTensorSpecs(std::string_view config_json,
                                                                  int rank);

// A tensor to write; float32, row-major. Borrows.
struct AdapterTensorView {
  std::string_view name;
  const std::vector<int64_t>* shape = nullptr;
  const std::vector<float>* values = nullptr;
};

// A tensor that was read; float32, row-major.
struct AdapterTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// adapter_model.safetensors: float32, metadata {"format": "pt"}, in the order of `allowed`.
// FAILED_PRECONDITION (ARTIFACT_TENSOR_NOT_ALLOWED) when `tensors` is not exactly `allowed`: a name
// outside it, twice or missing, another shape, or a number of values that is not the shape's.
// FAILED_PRECONDITION (ARTIFACT_TENSOR_NOT_FINITE) when a value is NaN or infinite.
absl::StatusOr<std::string> WriteAdapterModel(const std::vector<AdapterTensorSpec>& allowed,
                                              const std::vector<AdapterTensorView>& tensors);

// Reads adapter_model.safetensors (float32, bfloat16 or float16), sorted by name. Trusts nothing:
// the errors of ParseSafetensors, and INVALID_ARGUMENT (ARTIFACT_TENSOR_NOT_ALLOWED) as above.
absl::StatusOr<std::vector<AdapterTensor>> ReadAdapterModel(
    const std::vector<AdapterTensorSpec>& allowed, std::string_view bytes);

// What adapter_config.json says.
struct AdapterConfig {
  int rank = 16;
  double alpha = 32;
  std::string base_model_name;  // for people and PEFT's loader; the digest in the manifest decides
};

// Keys sorted, indent 2, as PEFT writes it.
std::string WriteAdapterConfig(const AdapterConfig& config);

// INVALID_ARGUMENT (ADAPTER_CONFIG_INVALID) when it is no plain LoRA configuration.
absl::StatusOr<AdapterConfig> ReadAdapterConfig(std::string_view json);

// Losses at an evaluation point, vector off.
struct CardEvaluation {
  int64_t step = 0;
  double training_loss = 0;
  std::optional<double> validation_loss;
};

// What the model card tells. Nothing of the vector but that the job was protected.
struct ModelCard {
  std::string job;  // resource name
  std::string display_name;
  std::string base_model_name;
  std::string base_digest;
  std::string training_dataset_digest;
  AdapterConfig adapter;
  double learning_rate = 0;
  int epochs = 0;
  int batch_rows = 0;
  std::string schedule;  // "cosine" or "linear"
  double warmup_ratio = 0;
  int64_t seed = 0;
  int64_t steps = 0;
  int64_t trained_tokens = 0;
  std::string code_version;
  int64_t safety_rows = 0;    // that the service mixed into the job
  int64_t rows_left_out = 0;  // flagged by the service's screening
  bool unprotected = false;   // trained without a vector, since its base is marked so
  bool certified = false;     // whether the service's protection had a certificate
  std::vector<CardEvaluation> evaluations;
};

// README.md with the front matter that model hubs read. Text from customers is escaped.
std::string WriteModelCard(const ModelCard& card);

}  // namespace ballast::artifact

#endif  // BALLAST_COMMON_ARTIFACT_ADAPTER_FOLDER_H_
