// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_INNER_ADVERSARY_H_
#define BALLAST_WORKER_TRAIN_INNER_ADVERSARY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/train/adapter_state.h"

namespace ballast::worker {

// The inner minimisation of a vector's training (min over the vector of the min over an adapter:
// arXiv 2311.02105 v1, whose form is that of unlearnable examples): an attacker's LoRA beside the
// vector, which takes some steps on the prohibited rows before each step of the vector. Both lie in
// one state, the vector in the first `rank` of its ranks and the attacker in the others. Changes
// the state in place, so that no copy of a vector is left. Thread safety: not thread-safe.
class InnerAdversary {
 public:
  // `state` must outlive it, and have a rank above `rank`.
  InnerAdversary(AdapterState& state, int64_t rank);

  // The attacker begins anew with its part of `start`, float32 [layout().size()] on the CPU.
  void Restart(const float* start);
  // A step of `learning_rate` against the sign of each gradient, as Adam's first: of the attacker
  // alone.
  void Step(double learning_rate);
  // Leaves the vector's gradients alone.
  void DropGradients();
  // The attacker is zero; the vector alone acts.
  void Remove();

 private:
  AdapterState& state_;
  at::Tensor vector_, attacker_;  // float32 [layout().size()]: 1 where the part lies, else 0
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_INNER_ADVERSARY_H_
