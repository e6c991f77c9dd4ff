// SPDX-License-Identifier: Apache-2.0
// config.json of a base model. The server checks an import by it and the engine builds the model
// from it, so that what one takes the other runs.
#ifndef BALLAST_COMMON_ARTIFACT_MODEL_CONFIG_H_
#define BALLAST_COMMON_ARTIFACT_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast::artifact {

// Llama 3's stretching of rotary frequencies for long contexts.
struct Llama3RopeScaling {
  double factor = 8.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  double original_context = 8192;
};

// The parts of a Hugging Face config.json that decide about tensors and arithmetic.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  int64_t layers = 0;
  int64_t hidden = 0;        // H
  int64_t intermediate = 0;  // F
  int64_t heads = 0;
  int64_t kv_heads = 0;  // G; divides heads
  int64_t head_dim = 0;  // D, even
  int64_t vocabulary = 0;
  int64_t context_tokens = 0;
  double rms_epsilon = 1e-6;
  double rope_theta = 10000.0;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool tied_embeddings = false;

  int64_t queries_per_kv() const { return heads / kv_heads; }
};

// Parses config.json. INVALID_ARGUMENT: UNSUPPORTED_ARCHITECTURE for anything but a Llama without
// biases (the message says which setting is not supported), MODEL_CONFIG_INVALID for no JSON, a
// missing field or a value out of range.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

}  // namespace ballast::artifact

#endif  // BALLAST_COMMON_ARTIFACT_MODEL_CONFIG_H_
