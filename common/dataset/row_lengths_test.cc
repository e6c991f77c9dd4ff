// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/row_lengths.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace ballast::dataset {
namespace {

TEST(RowLengthsTest, NoRows) {
  EXPECT_EQ(RowLengths().Quantile(0.5), 0);
  EXPECT_EQ(RowLengths().longest(), 0);
}

TEST(RowLengthsTest, ShortRowsAreExact) {
  RowLengths lengths;
  for (int64_t tokens = 1; tokens <= 60; ++tokens) lengths.Add(tokens);
  EXPECT_EQ(lengths.Quantile(0.5), 30);
  EXPECT_EQ(lengths.Quantile(0.9), 54);
  EXPECT_EQ(lengths.longest(), 60);
}

TEST(RowLengthsTest, LongRowsAreWithinTwoPercent) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> draw(6.0, 1.5);
  RowLengths lengths;
  std::vector<int64_t> all;
  for (int i = 0; i < 20'000; ++i) {
    all.push_back(1 + static_cast<int64_t>(draw(random)));
    lengths.Add(all.back());
  }
  std::sort(all.begin(), all.end());
  for (const double quantile : {0.01, 0.25, 0.5, 0.9, 0.99, 1.0}) {
    const auto exact =
        static_cast<double>(all[static_cast<size_t>(std::ceil(quantile * 20'000)) - 1]);
    EXPECT_NEAR(static_cast<double>(lengths.Quantile(quantile)), exact, 0.02 * exact) << quantile;
  }
}

}  // namespace
}  // namespace ballast::dataset
