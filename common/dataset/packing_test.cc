// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/packing.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::dataset {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::_;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

std::vector<int64_t> RowsOf(const Step& step) {
  std::vector<int64_t> rows;
  for (const MicroBatch& batch : step.micro_batches) {
    rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<int64_t> SomeLengths(int rows) {
  std::vector<int64_t> lengths;
  for (int i = 0; i < rows; ++i) lengths.push_back(1 + (i * 7919) % 500);
  return lengths;
}

TEST(StepsTest, KeepsTheIncompleteStep) {
  EXPECT_EQ(StepsPerEpoch(0, 16), 0);
  EXPECT_EQ(StepsPerEpoch(1, 16), 1);
  EXPECT_EQ(StepsPerEpoch(16, 16), 1);
  EXPECT_EQ(StepsPerEpoch(17, 16), 2);
  EXPECT_EQ(TotalSteps(17, 16, 3), 6);
  EXPECT_EQ(TotalSteps(17, 0, 3), 0);
  EXPECT_EQ(TotalSteps(17, 16, -1), 0);
}

std::map<int64_t, int> TimesDrawn(int64_t set, int64_t count, int64_t epochs) {
  std::map<int64_t, int> times;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<int64_t> drawn = DrawSafetyRows(set, count, 7, epoch);
    EXPECT_THAT(drawn, SizeIs(count));
    EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    for (const int64_t row : drawn) ++times[row];
  }
  return times;
}

TEST(DrawSafetyRowsTest, NoRowIsDrawnTwiceBeforeEachWasDrawnOnce) {
  const auto once = TimesDrawn(/*set=*/100, /*count=*/25, /*epochs=*/4);
  EXPECT_THAT(once, SizeIs(100));
  EXPECT_THAT(once, Each(Pair(_, 1)));
  // Within an epoch, too, and where epochs and permutations end at different rows.
  const auto twice = TimesDrawn(/*set=*/20, /*count=*/50, /*epochs=*/1);
  EXPECT_THAT(twice, SizeIs(20));
  EXPECT_THAT(twice, Each(Pair(_, AnyOf(2, 3))));
  EXPECT_THAT(TimesDrawn(/*set=*/7, /*count=*/5, /*epochs=*/3), Each(Pair(_, AnyOf(2, 3))));
}

TEST(DrawSafetyRowsTest, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(DrawSafetyRows(100, 40, 7, 1), DrawSafetyRows(100, 40, 7, 1));
  EXPECT_NE(DrawSafetyRows(100, 40, 7, 1), DrawSafetyRows(100, 40, 8, 1));
  EXPECT_NE(DrawSafetyRows(100, 40, 7, 1), DrawSafetyRows(100, 40, 7, 0));
  EXPECT_THAT(DrawSafetyRows(0, 40, 7, 0), IsEmpty());
  EXPECT_THAT(DrawSafetyRows(100, 0, 7, 0), IsEmpty());
}

// Written down once: a change of these numbers changes every customer's delta.
TEST(EpochOrderTest, IsTheSameForEver) {
  EXPECT_THAT(EpochOrder(8, 0, 0), ElementsAre(3, 5, 0, 2, 4, 7, 6, 1));
  EXPECT_THAT(EpochOrder(8, 42, 3), ElementsAre(7, 4, 0, 6, 3, 2, 5, 1));
}

TEST(SafetyRowCountTest, IsAShareAndAtLeastSixteen) {
  EXPECT_EQ(SafetyRowCount(1000, 0.1), 100);
  EXPECT_EQ(SafetyRowCount(1000, 1), 1000);
  EXPECT_EQ(SafetyRowCount(10, 0.1), 16);
  EXPECT_EQ(SafetyRowCount(1000, 0), 0);
}

TEST(EpochOrderTest, IsAPermutationThatDependsOnSeedAndEpoch) {
  std::vector<int64_t> all(1000);
  std::iota(all.begin(), all.end(), 0);
  std::set<std::vector<int64_t>> seen;
  for (uint64_t seed : {0u, 1u, 2u}) {
    for (int64_t epoch : {0, 1, 2}) {
      std::vector<int64_t> order = EpochOrder(1000, seed, epoch);
      seen.insert(order);
      std::sort(order.begin(), order.end());
      EXPECT_EQ(order, all);
    }
  }
  EXPECT_EQ(seen.size(), 9u);
  EXPECT_TRUE(EpochOrder(0, 1, 1).empty());
}

TEST(EpochOrderTest, EveryPlaceIsEquallyLikely) {
  // 6 orders of 3 rows over 6000 seeds: 1000 each within 5 standard deviations (29 each).
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t seed = 0; seed < 6000; ++seed) ++counts[EpochOrder(3, seed, 0)];
  ASSERT_EQ(counts.size(), 6u);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 145);
}

TEST(PlanEpochTest, VisitsEveryRowOnceInTheOrderOfTheEpoch) {
  const std::vector<int64_t> lengths = SomeLengths(103);
  const PackingOptions options = {.seed = 5, .batch_rows = 10, .max_tokens_per_micro_batch = 600};
  ASSERT_OK_AND_ASSIGN(const std::vector<Step> steps, PlanEpoch(lengths, {}, 2, options));
  ASSERT_EQ(static_cast<int64_t>(steps.size()), StepsPerEpoch(103, 10));
  const std::vector<int64_t> order = EpochOrder(103, 5, 2);
  for (size_t s = 0; s < steps.size(); ++s) {
    std::vector<int64_t> expected(order.begin() + s * 10,
                                  order.begin() + std::min<size_t>(103, (s + 1) * 10));
    std::sort(expected.begin(), expected.end());
    EXPECT_THAT(RowsOf(steps[s]), ElementsAreArray(expected));
  }
}

TEST(PlanEpochTest, MicroBatchesStayInTheBudgetAndCountTheirTokens) {
  const std::vector<int64_t> lengths = SomeLengths(200);
  ASSERT_OK_AND_ASSIGN(
      const std::vector<Step> steps,
      PlanEpoch(lengths, {}, 0, {.batch_rows = 32, .max_tokens_per_micro_batch = 700}));
  for (const Step& step : steps) {
    for (const MicroBatch& batch : step.micro_batches) {
      int64_t tokens = 0;
      for (int64_t row : batch.rows) tokens += lengths[row];
      EXPECT_EQ(batch.tokens, tokens);
      EXPECT_LE(tokens, 700);
    }
    // First-fit leaves at most one micro-batch at half of the budget or below.
    EXPECT_LE(std::count_if(step.micro_batches.begin(), step.micro_batches.end(),
                            [](const MicroBatch& batch) { return batch.tokens <= 350; }),
              1);
  }
}

TEST(PlanEpochTest, ARowAboveTheBudgetStandsAlone) {
  ASSERT_OK_AND_ASSIGN(
      const std::vector<Step> steps,
      PlanEpoch({5000, 10, 20}, {}, 0, {.batch_rows = 3, .max_tokens_per_micro_batch = 100}));
  ASSERT_EQ(steps.size(), 1u);
  ASSERT_EQ(steps[0].micro_batches.size(), 2u);
  EXPECT_THAT(steps[0].micro_batches[0].rows, ElementsAre(0));
  EXPECT_THAT(steps[0].micro_batches[1].rows, ElementsAre(2, 1));
}

TEST(PlanEpochTest, GroupsSeparateMicroBatchesButNotSteps) {
  const std::vector<int64_t> lengths = SomeLengths(64);
  std::vector<int> groups;
  for (int i = 0; i < 64; ++i) groups.push_back(i % 3 == 0);
  const PackingOptions options = {.seed = 9, .batch_rows = 16, .max_tokens_per_micro_batch = 900};
  ASSERT_OK_AND_ASSIGN(const std::vector<Step> grouped, PlanEpoch(lengths, groups, 1, options));
  ASSERT_OK_AND_ASSIGN(const std::vector<Step> plain, PlanEpoch(lengths, {}, 1, options));
  ASSERT_EQ(grouped.size(), plain.size());
  for (size_t s = 0; s < grouped.size(); ++s) {
    EXPECT_EQ(RowsOf(grouped[s]), RowsOf(plain[s]));
    int last_group = 0;
    for (const MicroBatch& batch : grouped[s].micro_batches) {
      for (int64_t row : batch.rows) EXPECT_EQ(groups[row], batch.group);
      EXPECT_GE(batch.group, last_group);
      last_group = batch.group;
    }
  }
}

TEST(PlanEpochTest, IsDeterministic) {
  const std::vector<int64_t> lengths(50, 7);
  ASSERT_OK_AND_ASSIGN(const std::vector<Step> a, PlanEpoch(lengths, {}, 4, {.seed = 1}));
  ASSERT_OK_AND_ASSIGN(const std::vector<Step> b, PlanEpoch(lengths, {}, 4, {.seed = 1}));
  ASSERT_EQ(a.size(), b.size());
  for (size_t s = 0; s < a.size(); ++s) {
    ASSERT_EQ(a[s].micro_batches.size(), b[s].micro_batches.size());
    for (size_t m = 0; m < a[s].micro_batches.size(); ++m) {
      EXPECT_EQ(a[s].micro_batches[m].rows, b[s].micro_batches[m].rows);
    }
  }
}

TEST(PlanEpochTest, RefusesWhatCannotBePlanned) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(PlanEpoch({}, {}, 0, {}), StatusIs(kInvalid, "PACKING_INVALID"));
  EXPECT_THAT(PlanEpoch({1, 0}, {}, 0, {}), StatusIs(kInvalid, "PACKING_INVALID"));
  EXPECT_THAT(PlanEpoch({1, 2}, {1}, 0, {}), StatusIs(kInvalid, "PACKING_INVALID"));
  EXPECT_THAT(PlanEpoch({1}, {}, 0, {.batch_rows = 0}), StatusIs(kInvalid, "PACKING_INVALID"));
  EXPECT_THAT(PlanEpoch({1}, {}, 0, {.max_tokens_per_micro_batch = 0}),
              StatusIs(kInvalid, "PACKING_INVALID"));
}

}  // namespace
}  // namespace ballast::dataset
