// SPDX-License-Identifier: Apache-2.0
#include "worker/train/language_head.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace ballast::worker {
namespace {

// Rows per chunk: enough for the product's full speed, few enough that their logits stay in the
// cache.
constexpr int64_t kChunkRows = 256;

}  // namespace

at::Tensor LanguageHead::Normed(const Transformer::Output& output) {
  const int64_t rows = output.stream.size(0), hidden = output.stream.size(1);
  at::Tensor normed = workspace_.Get("head.normed", {rows, hidden});
  model_.ops->RmsNorm(output.stream, output.delta, model_.final_norm, model_.config.rms_epsilon,
                      workspace_.Get("head.hidden", {rows, hidden}), normed,
                      workspace_.Get("head.rstd", {rows}, at::kFloat));
  return normed;
}

template <typename Chunk>
at::Tensor LanguageHead::ForEachChunk(const Transformer::Output& output, bool gradient,
                                      const Chunk& chunk) {
  const at::Tensor normed = Normed(output);
  const int64_t rows = normed.size(0), hidden = normed.size(1);
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    const int64_t count = std::min(kChunkRows, rows - begin);
    at::Tensor logits = workspace_.Get("head.logits", {count, model_.config.vocabulary});
    at::Tensor part = normed.narrow(0, begin, count);
    at::mm_out(logits, part, model_.head.t());
    chunk(begin, count, logits);
    // The gradient takes the place of the chunk's state, which is used up.
    if (gradient) at::mm_out(part, logits, model_.head);
  }
  if (!gradient) return at::Tensor();
  at::Tensor dhidden = workspace_.Get("head.dhidden", {rows, hidden});
  model_.ops->RmsNormBackward(normed, workspace_.Get("head.hidden", {rows, hidden}),
                              model_.final_norm, workspace_.Get("head.rstd", {rows}, at::kFloat),
                              at::Tensor(), dhidden);
  return dhidden;
}

at::Tensor LanguageHead::CrossEntropy(const Transformer::Output& output, const at::Tensor& targets,
                                      const at::Tensor& coefficients, const at::Tensor& losses) {
  const bool gradient = coefficients.defined();
  return ForEachChunk(
      output, gradient, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
        model_.ops->CrossEntropy(logits, targets.narrow(0, begin, count),
                                 gradient ? coefficients.narrow(0, begin, count) : at::Tensor(),
                                 losses.narrow(0, begin, count));
      });
}

at::Tensor LanguageHead::KlDivergence(const Transformer::Output& output,
                                      const at::Tensor& base_normed, const at::Tensor& coefficients,
                                      const at::Tensor& divergences) {
  const bool gradient = coefficients.defined();
  return ForEachChunk(
      output, gradient, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
        at::Tensor base = workspace_.Get("head.base_logits", logits.sizes());
        at::mm_out(base, base_normed.narrow(0, begin, count), model_.head.t());
        model_.ops->KlDivergence(logits, base,
                                 gradient ? coefficients.narrow(0, begin, count) : at::Tensor(),
                                 divergences.narrow(0, begin, count));
      });
}

}  // namespace ballast::worker
