// SPDX-License-Identifier: Apache-2.0
#include "worker/train/learner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "common/base/status_macros.h"
#include "worker/row_windows.h"

namespace ballast::worker {
namespace {

// In double and in order, so that the result depends on nothing but the values.
double WeightedSum(const at::Tensor& losses, const at::Tensor& coefficients) {
  const at::Tensor l = losses.cpu(), c = coefficients.cpu();
  const auto* loss = l.const_data_ptr<float>();
  const auto* coefficient = c.const_data_ptr<float>();
  double sum = 0;
  for (int64_t i = 0; i < l.numel(); ++i) sum += static_cast<double>(loss[i]) * coefficient[i];
  return sum;
}

std::vector<float> Mean(const at::Tensor& stream) {
  const at::Tensor mean = stream.mean(0).contiguous();
  const auto* values = mean.const_data_ptr<float>();
  return {values, values + mean.numel()};
}

// Calls `function` with micro-batches of at most `max_tokens` and the rows that each holds. Longest
// first, which fills them well. Batches without a target are left out.
absl::Status ForEachBatch(
    const std::vector<const TokenRow*>& rows, int64_t max_tokens, at::Device device,
    const Learner::Yield& yield,
    const std::function<void(const PackedBatch&, const std::vector<size_t>&)>& function) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return rows[a]->tokens.size() > rows[b]->tokens.size();
  });
  for (size_t begin = 0; begin < order.size();) {
    BALLAST_RETURN_IF_ERROR(yield());
    std::vector<const TokenRow*> chosen;
    int64_t tokens = 0;
    size_t end = begin;
    for (; end < order.size(); ++end) {
      const TokenRow* row = rows[order[end]];
      tokens += static_cast<int64_t>(row->tokens.size());
      if (!chosen.empty() && tokens > max_tokens) break;
      chosen.push_back(row);
    }
    const PackedBatch batch = Pack(chosen, device);
    if (batch.target_count() > 0) {
      function(batch, std::vector<size_t>(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                          order.begin() + static_cast<std::ptrdiff_t>(end)));
    }
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace

double Learner::Accumulate(const PackedBatch& batch, LinearWeights& weights, AdapterState& state,
                           double total_weight) {
  if (batch.target_count() == 0) return 0;
  const ActiveAdapter adapter = state.Activate(weights);
  const Transformer::Output output = transformer_.Forward(batch, weights, &adapter, /*keep=*/true);
  const at::Tensor coefficients = batch.weights / total_weight;
  const at::Tensor losses = Losses(batch.target_count());
  const at::Tensor dhidden = head_.CrossEntropy(output, batch.targets, coefficients, losses);
  transformer_.Backward(batch, weights, adapter, dhidden, state.gradients());
  return WeightedSum(losses, coefficients);
}

double Learner::AccumulateKl(const PackedBatch& batch, const at::Tensor& base_normed,
                             LinearWeights& weights, AdapterState& state, double total_weight) {
  if (batch.target_count() == 0) return 0;
  const ActiveAdapter adapter = state.Activate(weights);
  const Transformer::Output output = transformer_.Forward(batch, weights, &adapter, /*keep=*/true);
  const at::Tensor coefficients = batch.weights / total_weight;
  const at::Tensor divergences = Losses(batch.target_count());
  const at::Tensor dhidden = head_.KlDivergence(output, base_normed, coefficients, divergences);
  transformer_.Backward(batch, weights, adapter, dhidden, state.gradients());
  return WeightedSum(divergences, coefficients);
}

at::Tensor Learner::BaseNormed(const PackedBatch& batch, const LinearWeights& weights) {
  return head_.Normed(transformer_.Forward(batch, weights, nullptr, /*keep=*/false)).clone();
}

absl::StatusOr<std::vector<double>> Learner::RowLosses(const std::vector<const TokenRow*>& rows,
                                                       LinearWeights& weights,
                                                       const AdapterState* state,
                                                       int64_t max_tokens, const Yield& yield) {
  std::vector<double> result(rows.size(), 0.0);
  BALLAST_RETURN_IF_ERROR(ForEachRowsLosses(
      rows, weights, state, max_tokens, yield, [&](size_t row, const float* losses, int64_t count) {
        result[row] = std::accumulate(losses, losses + count, 0.0);
      }));
  return result;
}

absl::StatusOr<std::vector<std::vector<double>>> Learner::WindowLosses(
    const std::vector<const TokenRow*>& rows, LinearWeights& weights, int64_t max_tokens,
    const Yield& yield) {
  std::vector<std::vector<double>> result(rows.size());
  BALLAST_RETURN_IF_ERROR(ForEachRowsLosses(rows, weights, nullptr, max_tokens, yield,
                                            [&](size_t row, const float* losses, int64_t count) {
                                              for (const RowWindow& window : RowWindows(count)) {
                                                const float* begin = losses + window.begin;
                                                result[row].push_back(std::accumulate(
                                                    begin, begin + window.count, 0.0));
                                              }
                                            }));
  return result;
}

absl::Status Learner::ForEachRowsLosses(
    const std::vector<const TokenRow*>& rows, LinearWeights& weights, const AdapterState* state,
    int64_t max_tokens, const Yield& yield,
    const std::function<void(size_t row, const float* losses, int64_t count)>& function) {
  return ForEachBatch(rows, max_tokens, model_.device, yield,
                      [&](const PackedBatch& batch, const std::vector<size_t>& chosen) {
                        ActiveAdapter adapter;
                        if (state != nullptr) adapter = state->Activate(weights);
                        const Transformer::Output output = transformer_.Forward(
                            batch, weights, state == nullptr ? nullptr : &adapter, /*keep=*/false);
                        const at::Tensor losses = Losses(batch.target_count());
                        head_.CrossEntropy(output, batch.targets, at::Tensor(), losses);
                        const at::Tensor host = losses.cpu();
                        const auto* loss = host.const_data_ptr<float>();
                        for (size_t i = 0; i < chosen.size(); ++i) {
                          function(chosen[i], loss, batch.row_targets[i]);
                          loss += batch.row_targets[i];
                        }
                      });
}

absl::StatusOr<std::vector<std::vector<float>>> Learner::RowFeatures(
    const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
    int64_t max_tokens, const Yield& yield) {
  const auto hidden = static_cast<size_t>(model_.config.hidden);
  std::vector<std::vector<float>> result(rows.size(), std::vector<float>(hidden));
  BALLAST_RETURN_IF_ERROR(
      ForEachRowsStream(rows, weights, layers, max_tokens, yield,
                        [&](size_t row, const at::Tensor& stream) { result[row] = Mean(stream); }));
  return result;
}

absl::StatusOr<std::vector<std::vector<std::vector<float>>>> Learner::WindowFeatures(
    const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
    int64_t max_tokens, const Yield& yield) {
  std::vector<std::vector<std::vector<float>>> result(rows.size());
  BALLAST_RETURN_IF_ERROR(ForEachRowsStream(
      rows, weights, layers, max_tokens, yield, [&](size_t row, const at::Tensor& stream) {
        for (const RowWindow& window : RowWindows(stream.size(0))) {
          result[row].push_back(Mean(stream.narrow(0, window.begin, window.count)));
        }
      }));
  return result;
}

absl::Status Learner::ForEachRowsStream(
    const std::vector<const TokenRow*>& rows, const LinearWeights& weights, int layers,
    int64_t max_tokens, const Yield& yield,
    const std::function<void(size_t row, const at::Tensor& stream)>& function) {
  return ForEachBatch(
      rows, max_tokens, model_.device, yield,
      [&](const PackedBatch& batch, const std::vector<size_t>& chosen) {
        const Transformer::Output output = transformer_.ForwardPart(batch, weights, layers);
        // After the last layer there are the targets' rows alone.
        const auto targets = [&](const at::Tensor& part) {
          const bool all = part.size(0) == batch.target_count();
          return (all ? part : part.index_select(0, batch.target_rows)).to(at::kFloat);
        };
        const at::Tensor stream = (targets(output.stream) + targets(output.delta)).cpu();
        int64_t begin = 0;
        for (size_t i = 0; i < chosen.size(); ++i) {
          const int64_t count = batch.row_targets[i];
          if (count == 0) continue;
          function(chosen[i], stream.narrow(0, begin, count));
          begin += count;
        }
      });
}

absl::StatusOr<double> Learner::MeanLoss(const std::vector<const TokenRow*>& rows,
                                         LinearWeights& weights, const AdapterState* state,
                                         int64_t max_tokens, const Yield& yield) {
  BALLAST_ASSIGN_OR_RETURN(const std::vector<double> losses,
                           RowLosses(rows, weights, state, max_tokens, yield));
  int64_t targets = 0;
  for (const TokenRow* row : rows) targets += TargetCount(*row);
  return std::accumulate(losses.begin(), losses.end(), 0.0) /
         static_cast<double>(std::max<int64_t>(1, targets));
}

}  // namespace ballast::worker
