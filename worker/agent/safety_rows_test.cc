// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/safety_rows.h"

#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker::agent {
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

std::vector<TokenRow> Set(int rows) {
  std::vector<TokenRow> set(rows);
  for (int i = 0; i < rows; ++i) set[i].tokens = {i};
  return set;
}

std::vector<int> Chosen(int set, int64_t rows, double share, uint64_t seed) {
  std::vector<int> out;
  for (const TokenRow& row : ChooseSafetyRows(Set(set), rows, share, seed)) {
    out.push_back(row.tokens[0]);
  }
  return out;
}

std::map<int, int> Counts(const std::vector<int>& rows) {
  std::map<int, int> counts;
  for (const int row : rows) ++counts[row];
  return counts;
}

TEST(ChooseSafetyRowsTest, TakesTheShareAndAtLeastSixteen) {
  EXPECT_THAT(Chosen(100, 400, 0.1, 1), SizeIs(40));
  EXPECT_THAT(Chosen(100, 20, 0.1, 1), SizeIs(16));
  EXPECT_THAT(Chosen(100, 400, 0, 1), IsEmpty());
}

TEST(ChooseSafetyRowsTest, TakesNoRowTwiceBeforeEachWasTakenOnce) {
  EXPECT_THAT(Counts(Chosen(100, 400, 0.1, 1)), Each(Pair(::testing::_, 1)));
  const auto counts = Counts(Chosen(20, 500, 0.1, 1));
  EXPECT_THAT(counts, SizeIs(20));
  EXPECT_THAT(counts, Each(Pair(::testing::_, ::testing::AnyOf(2, 3))));
}

TEST(ChooseSafetyRowsTest, DependsOnTheSeedAlone) {
  EXPECT_EQ(Chosen(100, 400, 0.1, 7), Chosen(100, 400, 0.1, 7));
  EXPECT_NE(Chosen(100, 400, 0.1, 7), Chosen(100, 400, 0.1, 8));
}

}  // namespace
}  // namespace ballast::worker::agent
