// SPDX-License-Identifier: Apache-2.0
#include "worker/row_windows.h"

#include "gtest/gtest.h"

namespace ballast::worker {
namespace {

TEST(RowWindowsTest, AShortRowIsOneWindow) {
  EXPECT_TRUE(RowWindows(0).empty());
  for (const int64_t tokens : {1, 31, 32}) {
    const auto windows = RowWindows(tokens);
    ASSERT_EQ(windows.size(), 1u);
    EXPECT_EQ(windows[0].begin, 0);
    EXPECT_EQ(windows[0].count, tokens);
  }
}

TEST(RowWindowsTest, EveryPassageOfALongRowIsWholeInOneOfThem) {
  for (const int64_t tokens : {33, 40, 41, 100, 4001}) {
    const auto windows = RowWindows(tokens);
    EXPECT_EQ(windows.front().begin, 0);
    EXPECT_EQ(windows.back().begin + windows.back().count, tokens);
    const int64_t passage = kRowWindowTokens - kRowWindowStride + 1;
    for (int64_t begin = 0; begin + passage <= tokens; ++begin) {
      bool whole = false;
      for (const RowWindow& window : windows) {
        EXPECT_EQ(window.count, kRowWindowTokens);
        whole = whole || (window.begin <= begin && begin + passage <= window.begin + window.count);
      }
      EXPECT_TRUE(whole) << tokens << " " << begin;
    }
  }
}

}  // namespace
}  // namespace ballast::worker
