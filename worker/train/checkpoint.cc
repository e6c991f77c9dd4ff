// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpoint.h"

#include <cstring>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/safetensors.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "nlohmann/json.hpp"

namespace ballast::worker {
namespace {

constexpr char kFormat[] = "ballast-checkpoint-1";

template <typename T>
std::string_view BytesOf(const T* values, size_t count) {
  return {reinterpret_cast<const char*>(values), count * sizeof(T)};
}

void AddRows(Sha256& digest, const std::vector<TokenRow>& rows) {
  const uint64_t count = rows.size();
  digest.Update(BytesOf(&count, 1));
  for (const TokenRow& row : rows) {
    const uint64_t length = row.tokens.size();
    digest.Update(BytesOf(&length, 1));
    digest.Update(BytesOf(row.tokens.data(), row.tokens.size()));
    digest.Update(BytesOf(row.supervised.data(), row.supervised.size()));
    digest.Update(BytesOf(&row.weight, 1));
  }
}

absl::Status Corrupt(std::string_view what) {
  return MakeError(
      absl::StatusCode::kDataLoss, "CHECKPOINT_CORRUPT",
      absl::StrCat("the checkpoint cannot be read (", absl::string_view(what.data(), what.size()),
                   "); resume from an earlier one, or start again"));
}

nlohmann::json ToJson(const std::vector<Evaluation>& evaluations) {
  nlohmann::json list = nlohmann::json::array();
  for (const Evaluation& evaluation : evaluations) {
    nlohmann::json entry = {{"step", evaluation.step}, {"training_loss", evaluation.training_loss}};
    if (evaluation.validation_loss) entry["validation_loss"] = *evaluation.validation_loss;
    list.push_back(std::move(entry));
  }
  return list;
}

bool FromJson(const nlohmann::json& list, std::vector<Evaluation>& evaluations) {
  if (!list.is_array()) return false;
  for (const nlohmann::json& entry : list) {
    if (!entry.is_object() || !entry.contains("step") || !entry["step"].is_number_integer() ||
        !entry.contains("training_loss") || !entry["training_loss"].is_number()) {
      return false;
    }
    Evaluation evaluation{entry["step"].get<int64_t>(), entry["training_loss"].get<double>(), {}};
    if (entry.contains("validation_loss")) {
      if (!entry["validation_loss"].is_number()) return false;
      evaluation.validation_loss = entry["validation_loss"].get<double>();
    }
    evaluations.push_back(evaluation);
  }
  return true;
}

}  // namespace

std::string RequestDigest(const TrainRequest& request, const artifact::ModelConfig& model,
                          std::string_view precision) {
  const TrainConfig& config = request.config;
  nlohmann::json rope_scaling;
  if (model.rope_scaling) {
    rope_scaling = {model.rope_scaling->factor, model.rope_scaling->low_frequency_factor,
                    model.rope_scaling->high_frequency_factor,
                    model.rope_scaling->original_context};
  }
  // Numbers as JSON writes them are exact for doubles; keys are sorted.
  const nlohmann::json settings = {
      {"rank", config.lora.rank},
      {"alpha", config.lora.alpha},
      {"learning_rate", config.learning_rate},
      {"epochs", config.epochs},
      {"batch_rows", config.batch_rows},
      {"max_tokens_per_micro_batch", config.max_tokens_per_micro_batch},
      {"warmup_ratio", config.warmup_ratio},
      {"schedule", static_cast<int>(config.schedule)},
      {"weight_decay", config.weight_decay},
      {"adam_beta1", config.adam_beta1},
      {"adam_beta2", config.adam_beta2},
      {"adam_epsilon", config.adam_epsilon},
      {"max_gradient_norm", config.max_gradient_norm},
      {"seed", config.seed},
      {"evaluation_points", config.evaluation_points},
      {"vector_policy", static_cast<int>(config.vector_policy)},
      {"with_vector", request.vector != nullptr},
      {"safety_rows_per_epoch", request.safety_rows_per_epoch},
      {"layers", model.layers},
      {"hidden", model.hidden},
      {"intermediate", model.intermediate},
      {"vocabulary", model.vocabulary},
      {"heads", model.heads},
      {"kv_heads", model.kv_heads},
      {"head_dim", model.head_dim},
      {"rms_epsilon", model.rms_epsilon},
      {"rope_theta", model.rope_theta},
      {"rope_scaling", rope_scaling},
      {"tied_embeddings", model.tied_embeddings},
      {"precision", std::string(precision)}};
  Sha256 digest;
  digest.Update(settings.dump());
  AddRows(digest, request.rows);
  AddRows(digest, request.safety_rows);
  AddRows(digest, request.validation_rows);
  for (const NamedTensor& tensor : request.initial_adapter) {
    digest.Update(tensor.name);
    digest.Update(BytesOf(tensor.values.data(), tensor.values.size()));
  }
  return digest.Finish();
}

std::string WriteCheckpoint(const LoraLayout& layout, const Checkpoint& checkpoint,
                            std::string_view request_digest) {
  std::vector<artifact::TensorToWrite> tensors;
  for (const LoraSlot& slot : layout.slots()) {
    tensors.push_back(
        {layout.PeftName(slot),
         artifact::DType::kF32,
         {slot.rows, slot.columns},
         BytesOf(checkpoint.parameters.data() + slot.offset, slot.rows * slot.columns)});
  }
  for (const auto& [name, values] :
       {std::pair("adam.m", &checkpoint.m), std::pair("adam.v", &checkpoint.v)}) {
    tensors.push_back({name,
                       artifact::DType::kF32,
                       {static_cast<int64_t>(values->size())},
                       BytesOf(values->data(), values->size())});
  }
  return artifact::WriteSafetensors(tensors,
                                    {{"format", kFormat},
                                     {"request", std::string(request_digest)},
                                     {"step", absl::StrCat(checkpoint.step)},
                                     {"trained_tokens", absl::StrCat(checkpoint.trained_tokens)},
                                     {"evaluations", ToJson(checkpoint.evaluations).dump()}});
}

absl::StatusOr<Checkpoint> ReadCheckpoint(std::string_view bytes, const LoraLayout& layout,
                                          std::string_view request_digest) {
  absl::StatusOr<artifact::SafetensorsView> view = artifact::ParseSafetensors(bytes);
  if (!view.ok()) return Corrupt("it is no safetensors file");
  if (view->metadata["format"] != kFormat) return Corrupt("unknown format");
  if (view->metadata["request"] != request_digest) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH",
        "the checkpoint belongs to another job, base model or configuration; resume with the "
        "request it was made from");
  }
  Checkpoint checkpoint;
  if (!absl::SimpleAtoi(view->metadata["step"], &checkpoint.step) || checkpoint.step < 0 ||
      !absl::SimpleAtoi(view->metadata["trained_tokens"], &checkpoint.trained_tokens) ||
      !FromJson(nlohmann::json::parse(view->metadata["evaluations"], nullptr, false),
                checkpoint.evaluations)) {
    return Corrupt("its metadata");
  }
  const auto read = [&](const std::string& name, const std::vector<int64_t>& shape, float* target) {
    const auto it = view->tensors.find(name);
    if (it == view->tensors.end() || it->second.dtype != artifact::DType::kF32 ||
        it->second.shape != shape) {
      return false;
    }
    std::memcpy(target, it->second.bytes.data(), it->second.bytes.size());
    return true;
  };
  for (std::vector<float>* values : {&checkpoint.parameters, &checkpoint.m, &checkpoint.v}) {
    values->resize(layout.size());
  }
  for (const LoraSlot& slot : layout.slots()) {
    if (!read(layout.PeftName(slot), {slot.rows, slot.columns},
              &checkpoint.parameters[slot.offset])) {
      return Corrupt(layout.PeftName(slot));
    }
  }
  if (!read("adam.m", {layout.size()}, checkpoint.m.data()) ||
      !read("adam.v", {layout.size()}, checkpoint.v.data())) {
    return Corrupt("its moments");
  }
  return checkpoint;
}

}  // namespace ballast::worker
