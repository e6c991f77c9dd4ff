// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_ADAPTER_STATE_H_
#define BALLAST_WORKER_TRAIN_ADAPTER_STATE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "worker/train/lora.h"
#include "worker/train/model.h"
#include "worker/train/transformer.h"

namespace ballast::worker {

// The learning rate of optimizer step `step` (from 0) of `total_steps`: linear warm-up over the
// first ceil(warmup_ratio * total_steps) steps, then the schedule, as transformers' get_scheduler.
double LearningRate(const TrainConfig& config, int64_t step, int64_t total_steps);

// An adapter in training: float32 parameters, gradients and Adam moments in flat buffers, and the
// copy in the compute type that the layers read. Thread safety: not thread-safe.
class AdapterState {
 public:
  AdapterState(const Model& model, const LoraConfig& lora);

  const LoraLayout& layout() const { return layout_; }
  float scale() const { return scale_; }

  // Float32 [layout().size()] on the CPU, where the model computes on one; else copies to and from
  // it.
  void SetParameters(const float* flat);
  std::vector<float> Parameters() const { return ToHost(parameters_); }
  // The parameters themselves, float32 on the model's device.
  const at::Tensor& ParametersTensor() const { return parameters_; }
  void SetMoments(const float* m, const float* v);
  std::vector<float> FirstMoment() const { return ToHost(m_); }
  std::vector<float> SecondMoment() const { return ToHost(v_); }
  std::vector<float> Gradients() const { return ToHost(gradients_); }

  // The adapter for a forward through `weights`, whose columns are brought up to date.
  ActiveAdapter Activate(LinearWeights& weights) const;

  at::Tensor& gradients() { return gradients_; }
  void ClearGradients() { gradients_.zero_(); }

  // Clips the gradients to `max_norm` (0: no clipping) and applies AdamW. `options.step` counts
  // from 1. FAILED_PRECONDITION LOSS_NOT_FINITE when the gradient's norm is not finite; nothing has
  // changed then.
  absl::Status Step(AdamWStep options, double max_norm);

  // Changes the parameters, float32 [layout().size()] on the model's device, by hand.
  void Edit(const std::function<void(at::Tensor& parameters)>& edit);

  // Overwrites all buffers with zeros: for a vector's own training.
  void Wipe();

 private:
  static std::vector<float> ToHost(const at::Tensor& tensor);
  void Changed();

  const Model& model_;
  LoraLayout layout_;
  float scale_;
  at::Tensor parameters_, gradients_, m_, v_;  // float32
  at::Tensor copy_;                            // compute type
  uint64_t version_ = 0;
};

// The failure that a loss or gradient that is not finite means to the job's owner.
absl::Status LossNotFinite();

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_ADAPTER_STATE_H_
