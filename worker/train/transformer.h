// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the decoder layers, written by hand over ATen without autograd (ADR 4):
// the backward pass keeps per token and layer only the residual stream before each norm, q, k, v,
// the heads' output, gate and up, and the adapters' inner products; norms and activations are
// computed once more.
#ifndef BALLAST_WORKER_TRAIN_TRANSFORMER_H_
#define BALLAST_WORKER_TRAIN_TRANSFORMER_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>

#include "worker/train/lora.h"
#include "worker/train/model.h"
#include "worker/train/packed_batch.h"
#include "worker/train/workspace.h"

namespace ballast::worker {

// An adapter as the layers use it. Its scaled B lies in the columns of the LinearWeights in use.
struct ActiveAdapter {
  const LoraLayout* layout = nullptr;
  at::Tensor values;  // T, flat as the layout; only the A parts are read
  float scale = 1;    // alpha / rank
};

// Thread safety: not thread-safe. Runs under c10::InferenceMode of the caller.
class Transformer {
 public:
  // `model` and `workspace` must outlive it.
  Transformer(const Model& model, Workspace& workspace) : model_(model), workspace_(workspace) {}

  // The hidden state before the final norm at the N target rows, as a sum: stream + delta, T [N,
  // H].
  struct Output {
    at::Tensor stream, delta;
  };

  // Runs `batch` through `weights`, with `adapter` or (null) without. `keep` saves what Backward
  // needs; without it one layer's memory serves all. The result lives in the workspace until the
  // next call. Requires: batch.tokens > 0 and at least one target.
  Output Forward(const PackedBatch& batch, const LinearWeights& weights,
                 const ActiveAdapter* adapter, bool keep);

  // The stream after the first `layers` layers, as a sum: T [M, H], or [N, H] after the last one.
  // Without an adapter. Requires: 1 <= layers, at most the model's.
  Output ForwardPart(const PackedBatch& batch, const LinearWeights& weights, int layers);

  // Adds d loss / d adapter to `gradients` (float32, flat), given d loss / d (stream + delta) [N,
  // H]. `dhidden` is overwritten. Requires: the last call was Forward(batch, weights, &adapter,
  // true).
  void Backward(const PackedBatch& batch, const LinearWeights& weights,
                const ActiveAdapter& adapter, const at::Tensor& dhidden,
                const at::Tensor& gradients);

 private:
  Output RunLayers(const PackedBatch& batch, const LinearWeights& weights,
                   const ActiveAdapter* adapter, bool keep, int layers);

  // What one layer saves; views of the workspace.
  struct Saved {
    at::Tensor x, x_mid;             // residual stream before the two norms, T [M, H]
    at::Tensor q, k, v, heads, lse;  // as in attention.h
    at::Tensor gate_up;              // T [M, 2F]
    at::Tensor rstd_attention, rstd_mlp;
    std::array<at::Tensor, kGroups> z;  // A h of each group, T [M, tail]
  };
  // Views for layer `layer` of `batch`.
  Saved SavedFor(int layer, const PackedBatch& batch, const ActiveAdapter* adapter, bool keep);

  // In the last layer everything after attention is needed for the target rows alone.
  bool SelectsRows(int layer, const PackedBatch& batch) const {
    return layer + 1 == model_.config.layers && batch.target_count() < batch.tokens;
  }
  int64_t RowsAfterAttention(int layer, const PackedBatch& batch) const {
    return SelectsRows(layer, batch) ? batch.target_count() : batch.tokens;
  }

  // The buffer [rows, in + tail] for a group's input next to A h.
  at::Tensor Augmented(Group group, int64_t rows, const LinearWeights& weights);
  at::Tensor InputOf(const at::Tensor& augmented, Group group) const;
  at::Tensor TailOf(const at::Tensor& augmented, Group group) const;
  // Fills the tail with A h (also into `z`), or zero without an adapter; then out = the product.
  void GroupForward(int layer, Group group, const at::Tensor& augmented,
                    const LinearWeights& weights, const ActiveAdapter* adapter, const at::Tensor& z,
                    at::Tensor out);
  // From dout [rows, out]: adds B's gradient; returns [dinput | dz], with the adapter's part in
  // dinput (unless `only_tail`, for the first layer, whose input is not trained).
  at::Tensor GroupBackward(int layer, Group group, const at::Tensor& dout, const at::Tensor& z,
                           const LinearWeights& weights, const ActiveAdapter& adapter,
                           const at::Tensor& gradients, bool only_tail);
  // Adds A's gradient, from dz [rows, tail] and the group's input [rows, in].
  void AddGradientOfA(int layer, Group group, const at::Tensor& dz, const at::Tensor& input,
                      const ActiveAdapter& adapter, const at::Tensor& gradients);

  at::Tensor BackwardMlp(int layer, const Saved& saved, const LinearWeights& weights,
                         const ActiveAdapter& adapter, const at::Tensor& dx,
                         const at::Tensor& gradients);
  at::Tensor BackwardAttention(int layer, const PackedBatch& batch, const Saved& saved,
                               const LinearWeights& weights, const ActiveAdapter& adapter,
                               const at::Tensor& dx, const at::Tensor& gradients);

  const Model& model_;
  Workspace& workspace_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_TRANSFORMER_H_
