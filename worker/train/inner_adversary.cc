// SPDX-License-Identifier: Apache-2.0
#include "worker/train/inner_adversary.h"

#include <ATen/ATen.h>

namespace ballast::worker {

InnerAdversary::InnerAdversary(AdapterState& state, int64_t rank)
    : state_(state), vector_(at::zeros_like(state.ParametersTensor())) {
  const int64_t all = state.layout().rank();
  TORCH_CHECK(rank < all, "the state has no room for an attacker beside the vector");
  for (const LoraSlot& slot : state.layout().slots()) {
    const at::Tensor part =
        vector_.narrow(0, slot.offset, slot.rows * slot.columns).view({slot.rows, slot.columns});
    part.narrow(slot.is_b ? 1 : 0, 0, rank).fill_(1);
  }
  attacker_ = 1 - vector_;
}

void InnerAdversary::Restart(const float* start) {
  state_.Edit([&](at::Tensor& parameters) {
    const at::Tensor from = at::from_blob(const_cast<float*>(start), parameters.sizes(), at::kFloat)
                                .to(parameters.device());
    parameters.mul_(vector_).addcmul_(from, attacker_);
  });
}

void InnerAdversary::Step(double learning_rate) {
  at::Tensor& gradients = state_.gradients();
  gradients.sign_();
  state_.Edit(
      [&](at::Tensor& parameters) { parameters.addcmul_(gradients, attacker_, -learning_rate); });
  gradients.zero_();
}

void InnerAdversary::DropGradients() { state_.gradients().mul_(vector_); }

void InnerAdversary::Remove() {
  state_.Edit([&](at::Tensor& parameters) { parameters.mul_(vector_); });
}

}  // namespace ballast::worker
