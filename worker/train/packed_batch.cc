// SPDX-License-Identifier: Apache-2.0
#include "worker/train/packed_batch.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::worker {
namespace {

// Short documents share a segment up to this many tokens: a product over fewer rows is not faster.
constexpr int64_t kSegmentTokens = 128;

// Beginnings are shared where at most this part of all tokens is left: writing the rows out for
// attention is not worth a few tokens.
constexpr double kSharedAtMost = 0.9;

template <typename T>
at::Tensor ToTensor(const std::vector<T>& values, at::ScalarType type, at::Device device) {
  return at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::TensorOptions().dtype(type))
      .to(at::TensorOptions().dtype(type).device(device), /*non_blocking=*/false, /*copy=*/true);
}

// The fields of a PackedBatch.
struct Arrangement {
  std::vector<int64_t> ids, token_at, first_place, target_rows, targets, row_targets;
  std::vector<int32_t> positions, row_begin;
  std::vector<float> weights;
  std::vector<Segment> segments;
};

// Tokens of `row` that are inputs: all before its last target.
int64_t InputCount(const TokenRow& row) {
  size_t count = row.tokens.size();
  while (count > 1 && row.supervised[count - 1] == 0) --count;
  return count > 0 ? static_cast<int64_t>(count) - 1 : 0;
}

Arrangement Arrange(const std::vector<const TokenRow*>& rows, bool share) {
  Arrangement made;
  // A token that may be shared, by the one before it (-1 at the beginning) and its id.
  std::map<std::pair<int64_t, int32_t>, int64_t> known;
  for (const TokenRow* row : rows) {
    const auto begin = static_cast<int64_t>(made.token_at.size());
    const int64_t length = InputCount(*row);
    if (length > 0) {
      if (made.segments.empty() || begin + length - made.segments.back().begin > kSegmentTokens) {
        made.segments.push_back({begin, begin});
      }
      made.segments.back().end = begin + length;
    }
    int64_t row_targets = 0, token = -1;
    bool shareable = share;
    for (int64_t t = 0; t < length; ++t) {
      const bool has_target = row->supervised[t + 1] != 0;
      shareable = shareable && !has_target;
      const auto next = static_cast<int64_t>(made.ids.size());
      token = shareable ? known.try_emplace({token, row->tokens[t]}, next).first->second : next;
      if (token == next) {
        made.ids.push_back(row->tokens[t]);
        made.positions.push_back(static_cast<int32_t>(t));
        made.first_place.push_back(begin + t);
      }
      made.token_at.push_back(token);
      made.row_begin.push_back(static_cast<int32_t>(begin - made.segments.back().begin));
      if (has_target) {
        made.target_rows.push_back(token);
        made.targets.push_back(row->tokens[t + 1]);
        made.weights.push_back(row->weight);
        ++row_targets;
      }
    }
    made.row_targets.push_back(row_targets);
  }
  return made;
}

absl::Status RowError(std::string_view what, size_t row, std::string_view reason,
                      std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrCat(absl::string_view(what.data(), what.size()), " row ", row + 1, ": ",
                                absl::string_view(message.data(), message.size())));
}

}  // namespace

std::vector<const TokenRow*> PointersTo(const std::vector<TokenRow>& rows) {
  std::vector<const TokenRow*> pointers;
  pointers.reserve(rows.size());
  for (const TokenRow& row : rows) pointers.push_back(&row);
  return pointers;
}

PackedBatch Pack(const std::vector<const TokenRow*>& rows, at::Device device) {
  Arrangement made = Arrange(rows, /*share=*/true);
  if (static_cast<double>(made.ids.size()) >
      kSharedAtMost * static_cast<double>(made.token_at.size())) {
    made = Arrange(rows, /*share=*/false);
  }
  PackedBatch batch;
  batch.tokens = static_cast<int64_t>(made.ids.size());
  batch.token_ids = ToTensor(made.ids, at::kLong, device);
  batch.positions = ToTensor(made.positions, at::kInt, device);
  batch.places = static_cast<int64_t>(made.token_at.size());
  if (batch.places > batch.tokens) {
    batch.token_at = ToTensor(made.token_at, at::kLong, device);
    batch.first_place = ToTensor(made.first_place, at::kLong, device);
  }
  batch.row_begin = ToTensor(made.row_begin, at::kInt, device);
  batch.segments = std::move(made.segments);
  batch.target_rows = ToTensor(made.target_rows, at::kLong, device);
  batch.targets = ToTensor(made.targets, at::kLong, device);
  batch.weights = ToTensor(made.weights, at::kFloat, device);
  batch.row_targets = std::move(made.row_targets);
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
    supervised += LossWeight(row);
  }
  if (!(supervised > 0)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "NO_SUPERVISED_TOKENS",
                     absl::StrCat("no ", absl::string_view(what.data(), what.size()),
                                  " row has an assistant turn with weight above 0; add one"));
  }
  return absl::OkStatus();
}

}  // namespace ballast::worker
