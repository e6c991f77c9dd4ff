// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_LEARNER_H_
#define BALLAST_WORKER_TRAIN_LEARNER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/adapter_state.h"
#include "worker/train/language_head.h"
#include "worker/train/model.h"
#include "worker/train/packed_batch.h"
#include "worker/train/transformer.h"
#include "worker/train/workspace.h"

namespace ballast::worker {

// Losses of rows and gradients of micro-batches: what training, scoring and evaluation are made of.
// Thread safety: not thread-safe.
class Learner {
 public:
  // Asked between micro-batches; a failure ends the computation with it.
  using Yield = std::function<absl::Status()>;

  explicit Learner(const Model& model)
      : model_(model),
        workspace_(model.type, model.device),
        transformer_(model, workspace_),
        head_(model, workspace_) {}

  // Adds the gradient of sum over targets of weight * loss / total_weight to `state`'s. Returns
  // that sum.
  double Accumulate(const PackedBatch& batch, LinearWeights& weights, AdapterState& state,
                    double total_weight);

  // As Accumulate, for the divergence from the base: `base_normed` as in
  // LanguageHead::KlDivergence.
  double AccumulateKl(const PackedBatch& batch, const at::Tensor& base_normed,
                      LinearWeights& weights, AdapterState& state, double total_weight);

  // T [N, H]: normed hidden state of the targets on `weights` without an adapter. Own memory.
  at::Tensor BaseNormed(const PackedBatch& batch, const LinearWeights& weights);

  // Sum of the losses of each row's targets, unweighted, with `state` or (null) without an adapter.
  // Micro-batches of at most `max_tokens`.
  absl::StatusOr<std::vector<double>> RowLosses(const std::vector<const TokenRow*>& rows,
                                                LinearWeights& weights, const AdapterState* state,
                                                int64_t max_tokens, const Yield& yield);

  // The same without an adapter, summed over each of a row's windows (RowWindows).
  absl::StatusOr<std::vector<std::vector<double>>> WindowLosses(
      const std::vector<const TokenRow*>& rows, LinearWeights& weights, int64_t max_tokens,
      const Yield& yield);

  // Engine::RowFeatures of the stream after `layers` layers of `weights`.
  absl::StatusOr<std::vector<std::vector<float>>> RowFeatures(
      const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
      int64_t max_tokens, const Yield& yield);

  // The same for each of a row's windows.
  absl::StatusOr<std::vector<std::vector<std::vector<float>>>> WindowFeatures(
      const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
      int64_t max_tokens, const Yield& yield);

  // Mean of RowLosses over all targets.
  absl::StatusOr<double> MeanLoss(const std::vector<const TokenRow*>& rows, LinearWeights& weights,
                                  const AdapterState* state, int64_t max_tokens,
                                  const Yield& yield);

  Workspace& workspace() { return workspace_; }

 private:
  // Calls `function` with each row's number and the losses of its targets.
  absl::Status ForEachRowsLosses(
      const std::vector<const TokenRow*>& rows, LinearWeights& weights, const AdapterState* state,
      int64_t max_tokens, const Yield& yield,
      const std::function<void(size_t row, const float* losses, int64_t count)>& function);
  // Calls `function` with each row's number and the stream at its targets, float32 [targets, H].
  absl::Status ForEachRowsStream(
      const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
      int64_t max_tokens, const Yield& yield,
      const std::function<void(size_t row, const at::Tensor& stream)>& function);
  at::Tensor Losses(int64_t count) { return workspace_.Get("losses", {count}, at::kFloat); }

  const Model& model_;
  Workspace workspace_;
  Transformer transformer_;
  LanguageHead head_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_LEARNER_H_
