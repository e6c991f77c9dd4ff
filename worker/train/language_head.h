// SPDX-License-Identifier: Apache-2.0
// Final norm, vocabulary product and loss of the target rows, in chunks: logits of a chunk live
// only until its gradient is taken, in the same pass.
#ifndef BALLAST_WORKER_TRAIN_LANGUAGE_HEAD_H_
#define BALLAST_WORKER_TRAIN_LANGUAGE_HEAD_H_

#include <ATen/core/Tensor.h>

#include "worker/train/model.h"
#include "worker/train/transformer.h"
#include "worker/train/workspace.h"

namespace ballast::worker {

// Thread safety: not thread-safe.
class LanguageHead {
 public:
  // `model` and `workspace` must outlive it.
  LanguageHead(const Model& model, Workspace& workspace) : model_(model), workspace_(workspace) {}

  // T [N, H]: the normed hidden state; lives in the workspace until the next call.
  at::Tensor Normed(const Transformer::Output& output);

  // losses float32 [N] of `targets` int64 [N]. With coefficients float32 [N], returns
  // d sum(coefficients * losses) / d hidden, T [N, H], in the workspace; else an undefined tensor.
  at::Tensor CrossEntropy(const Transformer::Output& output, const at::Tensor& targets,
                          const at::Tensor& coefficients, const at::Tensor& losses);

  // divergences float32 [N] = KL(base || output), where base_normed T [N, H] is Normed of the
  // base's output; the rest as in CrossEntropy.
  at::Tensor KlDivergence(const Transformer::Output& output, const at::Tensor& base_normed,
                          const at::Tensor& coefficients, const at::Tensor& divergences);

 private:
  // Calls chunk(begin, count, logits) for every chunk and turns its logits into a gradient of the
  // normed state when `gradient`.
  template <typename Chunk>
  at::Tensor ForEachChunk(const Transformer::Output& output, bool gradient, const Chunk& chunk);

  const Model& model_;
  Workspace& workspace_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_LANGUAGE_HEAD_H_
