// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_PACKED_BATCH_H_
#define BALLAST_WORKER_TRAIN_PACKED_BATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/artifact/model_config.h"
#include "worker/trainer.h"

namespace ballast::worker {

// A stretch of places that attention works on at once: one long row, or several short ones that are
// masked against each other.
struct Segment {
  int64_t begin = 0, end = 0;
};

// Rows of one micro-batch without padding. Of each row only the tokens up to the last one before a
// target are inputs: what follows cannot change the loss.
//
// Rows often begin alike (a system prompt, a template), and what a causal model makes of a token
// hangs on the tokens before it alone. So rows share the tokens of a common beginning, up to the
// first that predicts a target: these go through the layers once, and their gradients are those of
// all their rows together. Only attention works on the rows written out, each of them whole; a
// "place" is one token of one row there.
struct PackedBatch {
  int64_t tokens = 0;    // M, different tokens
  at::Tensor token_ids;  // int64 [M]
  at::Tensor positions;  // int32 [M], from 0 in each row

  int64_t places = 0;      // E, tokens of all rows; M where nothing is shared
  at::Tensor token_at;     // int64 [E], the token at each place; undefined where nothing is shared
  at::Tensor first_place;  // int64 [M], a place of each token; undefined where nothing is shared
  at::Tensor row_begin;    // int32 [E], first place of the row, counted from the segment's begin
  std::vector<Segment> segments;  // of places

  at::Tensor target_rows;            // int64 [N], the tokens that predict a target, ascending
  at::Tensor targets;                // int64 [N]
  at::Tensor weights;                // float32 [N], the row's weight
  std::vector<int64_t> row_targets;  // targets of each row, in the order given

  int64_t target_count() const { return target_rows.size(0); }
};

std::vector<const TokenRow*> PointersTo(const std::vector<TokenRow>& rows);

// Packs `rows`; those without a target add nothing.
PackedBatch Pack(const std::vector<const TokenRow*>& rows, at::Device device);

// INVALID_ARGUMENT: ROW_INVALID (sizes differ, weight negative or not finite), ROW_TOO_LONG,
// TOKEN_OUT_OF_RANGE, and NO_SUPERVISED_TOKENS where no row has a target of positive weight. `what`
// names the rows in messages.
absl::Status CheckRows(const std::vector<TokenRow>& rows, const artifact::ModelConfig& config,
                       std::string_view what);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_PACKED_BATCH_H_
