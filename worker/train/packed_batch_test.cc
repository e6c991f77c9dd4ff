// SPDX-License-Identifier: Apache-2.0
// Which tokens of a micro-batch are computed, and which of them rows share.
#include "worker/train/packed_batch.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

// A row whose tokens from `prompt` on are supervised.
TokenRow Row(const std::vector<int32_t>& tokens, size_t prompt, float weight = 1.0f) {
  TokenRow row{.tokens = tokens, .weight = weight};
  for (size_t t = 0; t < tokens.size(); ++t) row.supervised.push_back(t >= prompt ? 1 : 0);
  return row;
}

PackedBatch PackRows(const std::vector<TokenRow>& rows) {
  std::vector<const TokenRow*> pointers;
  pointers.reserve(rows.size());
  for (const TokenRow& row : rows) pointers.push_back(&row);
  return Pack(pointers, at::kCPU);
}

template <typename T>
std::vector<T> Values(const at::Tensor& tensor) {
  const auto* begin = tensor.const_data_ptr<T>();
  return {begin, begin + tensor.numel()};
}

TEST(PackTest, RowsWithoutACommonBeginningStandEndToEnd) {
  const PackedBatch batch = PackRows({Row({1, 2, 3, 4}, 2), Row({5, 6, 7}, 1, 0.5f)});
  EXPECT_EQ(batch.tokens, 5) << "the last target is no input";
  EXPECT_EQ(batch.places, 5);
  EXPECT_FALSE(batch.token_at.defined());
  EXPECT_THAT(Values<int64_t>(batch.token_ids), ElementsAre(1, 2, 3, 5, 6));
  EXPECT_THAT(Values<int32_t>(batch.positions), ElementsAre(0, 1, 2, 0, 1));
  EXPECT_THAT(Values<int32_t>(batch.row_begin), ElementsAre(0, 0, 0, 3, 3));
  EXPECT_THAT(Values<int64_t>(batch.target_rows), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Values<int64_t>(batch.targets), ElementsAre(3, 4, 6, 7));
  EXPECT_THAT(Values<float>(batch.weights), ElementsAre(1, 1, 0.5f, 0.5f));
  EXPECT_THAT(batch.row_targets, ElementsAre(2, 2));
}

TEST(PackTest, RowsShareWhatTheyBeginWith) {
  const PackedBatch batch = PackRows({Row({1, 2, 3, 10, 11}, 4), Row({1, 2, 3, 20, 21, 22}, 4),
                                      Row({1, 2, 30, 31}, 3), Row({2, 3, 40}, 2)});
  EXPECT_THAT(Values<int64_t>(batch.token_ids), ElementsAre(1, 2, 3, 10, 20, 21, 30, 2, 3));
  EXPECT_THAT(Values<int32_t>(batch.positions), ElementsAre(0, 1, 2, 3, 3, 4, 2, 0, 1));
  EXPECT_EQ(batch.tokens, 9);
  EXPECT_EQ(batch.places, 14);
  EXPECT_THAT(Values<int64_t>(batch.token_at),
              ElementsAre(0, 1, 2, 3, 0, 1, 2, 4, 5, 0, 1, 6, 7, 8));
  EXPECT_THAT(Values<int64_t>(batch.first_place), ElementsAre(0, 1, 2, 3, 7, 8, 11, 12, 13));
  EXPECT_THAT(Values<int32_t>(batch.row_begin),
              ElementsAre(0, 0, 0, 0, 4, 4, 4, 4, 4, 9, 9, 9, 12, 12));
  EXPECT_THAT(Values<int64_t>(batch.target_rows), ElementsAre(3, 4, 5, 6, 8));
  EXPECT_THAT(Values<int64_t>(batch.targets), ElementsAre(11, 21, 22, 31, 40));
}

TEST(PackTest, WhatPredictsATargetIsTheRowsOwn) {
  // Alike to the last token, but the second row has a target early.
  TokenRow early = Row({1, 2, 3, 4, 5, 6}, 5);
  early.supervised[2] = 1;
  const PackedBatch batch =
      PackRows({Row({1, 2, 3, 4, 5, 6}, 5), early, Row({1, 2, 3, 4, 5, 6}, 5)});
  EXPECT_THAT(Values<int64_t>(batch.token_at),
              ElementsAre(0, 1, 2, 3, 4, 0, 5, 6, 7, 8, 0, 1, 2, 3, 9));
  EXPECT_THAT(Values<int64_t>(batch.target_rows), ElementsAre(4, 5, 8, 9));
}

TEST(PackTest, AFewCommonTokensAreNotWorthSharing) {
  std::vector<TokenRow> rows;
  for (int32_t i = 0; i < 3; ++i) {
    std::vector<int32_t> tokens = {1};
    for (int32_t t = 0; t < 40; ++t) tokens.push_back(100 * (i + 1) + t);
    rows.push_back(Row(tokens, 20));
  }
  const PackedBatch batch = PackRows(rows);
  EXPECT_EQ(batch.tokens, 120);
  EXPECT_FALSE(batch.token_at.defined());
}

TEST(PackTest, RowsWithoutATargetAddNothing) {
  const PackedBatch batch = PackRows({Row({1, 2, 3}, 3), Row({1, 2, 3}, 2), Row({7}, 0)});
  EXPECT_THAT(Values<int64_t>(batch.token_ids), ElementsAre(1, 2));
  EXPECT_THAT(batch.row_targets, ElementsAre(0, 1, 0));
}

TEST(PackTest, LongRowsHaveSegmentsOfTheirOwn) {
  std::vector<int32_t> tokens(301, 1);
  const PackedBatch batch = PackRows({Row(tokens, 250), Row({1, 2, 3}, 1), Row({1, 4, 5}, 1)});
  std::vector<std::pair<int64_t, int64_t>> segments;
  for (const Segment& segment : batch.segments) segments.emplace_back(segment.begin, segment.end);
  EXPECT_THAT(segments, ElementsAreArray({std::pair<int64_t, int64_t>{0, 300}, {300, 304}}));
}

}  // namespace
}  // namespace ballast::worker
