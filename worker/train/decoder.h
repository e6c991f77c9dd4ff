// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_DECODER_H_
#define BALLAST_WORKER_TRAIN_DECODER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/train/lora.h"
#include "worker/train/model.h"

namespace ballast::worker {

// One adapter beside the base's weights, as inference applies it: scale * B A.
struct AppliedAdapter {
  LoraLayout layout;
  at::Tensor values;  // flat as the layout, of the model's type and device
  float scale = 1;
};

// Autoregressive inference with a key/value cache on the clean base and the sum of some adapters
// beside it, as the customer will run it, for several sequences at once: their tokens go through
// the linear layers together. Shares nothing that changes with a training in progress: a sample may
// be drawn between its micro-batches. Thread safety: not thread-safe.
class Decoder {
 public:
  // Tokens to append to one sequence.
  struct Piece {
    int64_t sequence = 0;  // below `sequences`
    std::vector<int32_t> tokens;
  };

  // Each sequence has room for `capacity` tokens. `model` must outlive it.
  Decoder(const Model& model, std::vector<AppliedAdapter> adapters, int64_t sequences,
          int64_t capacity);

  // Forgets a sequence, so that another can take its place.
  void Clear(int64_t sequence);

  // The cleared sequence `to` then begins as `from` does, with its first `tokens` tokens.
  void CopyBeginning(int64_t from, int64_t to, int64_t tokens);

  // Makes `from` the cleared sequence `to`, and clears `from`.
  void Move(int64_t from, int64_t to);

  // Feeds pieces of different sequences, which follow each other (n, n + 1, ..); returns the hidden
  // states after the final norm, T [all tokens, H], piece after piece.
  at::Tensor Feed(const std::vector<Piece>& pieces);

  // float32 logits of hidden states [n, H], T [n, V] rounded as the model computes them.
  at::Tensor Logits(const at::Tensor& hidden) const;

 private:
  // One pass through the model: at most kFeedTokens tokens unless each piece has one.
  at::Tensor Pass(const std::vector<Piece>& pieces);
  at::Tensor Apply(int layer, Group group, const at::Tensor& input) const;
  at::Tensor Attend(int layer, const at::Tensor& qkv, const at::Tensor& positions,
                    const std::vector<Piece>& pieces);
  // One new token of each of several sequences, in one product each.
  void AttendStep(int layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const std::vector<Piece>& pieces, const at::Tensor& out);
  // Several new tokens of one sequence: rows [begin, begin + tokens) of the pass.
  void AttendPiece(int layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const Piece& piece, int64_t begin, const at::Tensor& out);

  const Model& model_;
  const std::vector<AppliedAdapter> adapters_;
  std::vector<int64_t> lengths_;  // tokens fed, per sequence
  // T [sequences, G, capacity, D] per layer. Values beyond a sequence's tokens are finite: they are
  // multiplied by zero.
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_DECODER_H_
