// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_DECODER_H_
#define BALLAST_WORKER_TRAIN_DECODER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/train/lora.h"
#include "worker/train/model.h"

namespace ballast::worker {

// Autoregressive inference with a key/value cache on the clean base and an adapter applied beside
// it, as the customer will run it. Shares nothing that changes with a training in progress: a
// sample may be drawn between its micro-batches. Thread safety: not thread-safe.
class Decoder {
 public:
  // `adapter` is flat float32 as `layout`, or undefined for the base alone. `model` and `layout`
  // must outlive it. At most `capacity` tokens can be fed.
  Decoder(const Model& model, const LoraLayout& layout, const at::Tensor& adapter, float scale,
          int64_t capacity);

  // Feeds tokens; returns the hidden state after the final norm, T [tokens, H].
  at::Tensor Feed(const std::vector<int32_t>& tokens);

  // float32 logits of hidden states [n, H], T [n, V] rounded as the model computes them.
  at::Tensor Logits(const at::Tensor& hidden) const;

 private:
  at::Tensor Apply(int layer, Group group, const at::Tensor& input) const;
  at::Tensor Attend(int layer, const at::Tensor& qkv);

  const Model& model_;
  const LoraLayout& layout_;
  at::Tensor adapter_;  // T, flat; undefined: none
  float scale_;
  int64_t length_ = 0;
  std::vector<at::Tensor> keys_, values_;  // T [G, capacity, D] per layer
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_DECODER_H_
