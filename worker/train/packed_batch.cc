// SPDX-License-Identifier: Apache-2.0
#include "worker/train/packed_batch.h"

#include <ATen/ATen.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::worker {
namespace {

// Short documents share a segment up to this many tokens: a product over fewer rows is not faster.
constexpr int64_t kSegmentTokens = 128;

template <typename T>
at::Tensor ToTensor(const std::vector<T>& values, at::ScalarType type, at::Device device) {
  return at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::TensorOptions().dtype(type))
      .to(at::TensorOptions().dtype(type).device(device), /*non_blocking=*/false, /*copy=*/true);
}

absl::Status RowError(std::string_view what, size_t row, std::string_view reason,
                      std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrCat(absl::string_view(what.data(), what.size()), " row ", row + 1, ": ",
                                absl::string_view(message.data(), message.size())));
}

}  // namespace

int64_t TargetCount(const TokenRow& row) {
  int64_t count = 0;
  for (size_t t = 1; t < row.tokens.size(); ++t) count += row.supervised[t] != 0 ? 1 : 0;
  return count;
}

PackedBatch Pack(const std::vector<const TokenRow*>& rows, at::Device device) {
  std::vector<int64_t> ids, target_rows, targets;
  std::vector<int32_t> positions, first;
  std::vector<float> weights;
  PackedBatch batch;
  for (const TokenRow* row : rows) {
    size_t inputs = row->tokens.size();
    while (inputs > 1 && row->supervised[inputs - 1] == 0) --inputs;
    inputs = inputs > 0 ? inputs - 1 : 0;  // the last target is no input
    int64_t row_targets = 0;
    const auto begin = static_cast<int64_t>(ids.size());
    const auto length = static_cast<int64_t>(inputs);
    if (length > 0) {
      if (batch.segments.empty() || begin + length - batch.segments.back().begin > kSegmentTokens) {
        batch.segments.push_back({begin, begin});
      }
      batch.segments.back().end = begin + length;
    }
    for (int64_t t = 0; t < length; ++t) {
      ids.push_back(row->tokens[t]);
      positions.push_back(static_cast<int32_t>(t));
      first.push_back(static_cast<int32_t>(begin - batch.segments.back().begin));
      if (row->supervised[t + 1] != 0) {
        target_rows.push_back(begin + t);
        targets.push_back(row->tokens[t + 1]);
        weights.push_back(row->weight);
        ++row_targets;
      }
    }
    batch.row_targets.push_back(row_targets);
  }
  batch.tokens = static_cast<int64_t>(ids.size());
  batch.token_ids = ToTensor(ids, at::kLong, device);
  batch.positions = ToTensor(positions, at::kInt, device);
  batch.first = ToTensor(first, at::kInt, device);
  batch.target_rows = ToTensor(target_rows, at::kLong, device);
  batch.targets = ToTensor(targets, at::kLong, device);
  batch.weights = ToTensor(weights, at::kFloat, device);
  return batch;
}

absl::Status CheckRows(const std::vector<TokenRow>& rows, const artifact::ModelConfig& config,
                       std::string_view what) {
  double supervised = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const TokenRow& row = rows[i];
    if (row.tokens.empty() || row.tokens.size() != row.supervised.size()) {
      return RowError(what, i, "ROW_INVALID", "it has no tokens, or not one mark for each");
    }
    if (!(row.weight >= 0) || !std::isfinite(row.weight)) {
      return RowError(what, i, "ROW_INVALID", "its weight must be 0 or a positive number");
    }
    if (static_cast<int64_t>(row.tokens.size()) > config.context_tokens) {
      return RowError(what, i, "ROW_TOO_LONG",
                      absl::StrCat("it has ", row.tokens.size(), " tokens, the model takes ",
                                   config.context_tokens, "; shorten or split it"));
    }
    for (const int32_t token : row.tokens) {
      if (token < 0 || token >= config.vocabulary) {
        return RowError(
            what, i, "TOKEN_OUT_OF_RANGE",
            "it has a token outside the model's vocabulary; use the model's own tokenizer");
      }
    }
    supervised += row.weight * static_cast<double>(TargetCount(row));
  }
  if (!(supervised > 0)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "NO_SUPERVISED_TOKENS",
                     absl::StrCat("no ", absl::string_view(what.data(), what.size()),
                                  " row has an assistant turn with weight above 0; add one"));
  }
  return absl::OkStatus();
}

}  // namespace ballast::worker
