// SPDX-License-Identifier: Apache-2.0
#include "worker/train/adapter_state.h"

#include <ATen/ATen.h>

#include <atomic>
#include <cmath>
#include <numbers>

#include "common/base/error.h"

namespace ballast::worker {

double LearningRate(const TrainConfig& config, int64_t step, int64_t total_steps) {
  const auto warmup =
      static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(total_steps)));
  if (step < warmup) {
    return config.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  }
  const double progress = static_cast<double>(step - warmup) /
                          static_cast<double>(std::max<int64_t>(1, total_steps - warmup));
  switch (config.schedule) {
    case Schedule::kCosine:
      return config.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    case Schedule::kLinear:
      return config.learning_rate * (1 - progress);
    case Schedule::kConstant:
      break;
  }
  return config.learning_rate;
}

AdapterState::AdapterState(const Model& model, const LoraConfig& lora)
    : model_(model),
      layout_(model.config, lora.rank),
      scale_(lora.alpha / static_cast<float>(lora.rank)) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(model.device);
  for (at::Tensor* tensor : {&parameters_, &gradients_, &m_, &v_}) {
    *tensor = at::zeros({layout_.size()}, options);
  }
  copy_ = at::zeros({layout_.size()}, options.dtype(model.type));
  Changed();
}

void AdapterState::SetParameters(const float* flat) {
  Edit([&](at::Tensor& parameters) {
    parameters.copy_(at::from_blob(const_cast<float*>(flat), {layout_.size()}, at::kFloat));
  });
}

void AdapterState::SetMoments(const float* m, const float* v) {
  m_.copy_(at::from_blob(const_cast<float*>(m), {layout_.size()}, at::kFloat));
  v_.copy_(at::from_blob(const_cast<float*>(v), {layout_.size()}, at::kFloat));
}

std::vector<float> AdapterState::ToHost(const at::Tensor& tensor) {
  const at::Tensor host = tensor.cpu();
  const auto* data = host.const_data_ptr<float>();
  return {data, data + host.numel()};
}

void AdapterState::Changed() {
  // Unique in the process, so that columns loaded by another adapter are never taken for this
  // one's.
  static std::atomic<uint64_t> last_version{0};
  version_ = ++last_version;
}

ActiveAdapter AdapterState::Activate(LinearWeights& weights) const {
  weights.LoadAdapter(layout_, parameters_, scale_, version_);
  return {&layout_, copy_, scale_};
}

absl::Status AdapterState::Step(AdamWStep options, double max_norm) {
  const double norm =
      at::linalg_vector_norm(gradients_, 2, std::nullopt, false, at::kDouble).item<double>();
  if (!std::isfinite(norm)) return LossNotFinite();
  // As torch.nn.utils.clip_grad_norm_.
  if (max_norm > 0) options.clip = static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
  model_.ops->AdamW(parameters_, gradients_, m_, v_, copy_, options);
  Changed();
  return absl::OkStatus();
}

void AdapterState::Edit(const std::function<void(at::Tensor& parameters)>& edit) {
  edit(parameters_);
  copy_.copy_(parameters_);
  Changed();
}

void AdapterState::Wipe() {
  for (at::Tensor* tensor : {&parameters_, &gradients_, &m_, &v_, &copy_}) tensor->zero_();
}

absl::Status LossNotFinite() {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE",
      "training diverged: the loss became infinite or not a number. Lower the learning rate "
      "(a tenth is a good next try), or look for damaged rows in the data set");
}

}  // namespace ballast::worker
