// SPDX-License-Identifier: Apache-2.0
#include "worker/screening/guard.h"

#include <cmath>
#include <limits>
#include <random>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast::worker::screening {
namespace {

using ::ballast::testing::StatusIs;

constexpr size_t kDimensions = 24;

// Rows around `centre` in the first three dimensions, noise in all; one dimension is constant and
// one has numbers a thousand times the others'.
Features Rows(int count, double centre, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> noise;
  Features rows;
  for (int i = 0; i < count; ++i) {
    std::vector<float>& row = rows.emplace_back(kDimensions);
    for (float& x : row) x = noise(random);
    for (int j = 0; j < 3; ++j) row[j] += static_cast<float>(centre);
    row[3] = 7;
    row[4] *= 1000;
  }
  return rows;
}

double Flagged(const Guard& guard, const Features& rows) {
  double flagged = 0;
  for (const auto& row : rows) flagged += guard.Flags({row}) ? 1 : 0;
  return flagged / static_cast<double>(rows.size());
}

TEST(GuardTest, TellsRowsApartThatItHasNotSeen) {
  ASSERT_OK_AND_ASSIGN(const Guard guard, Guard::Fit(Rows(100, 3, 1), Rows(200, -3, 2)));
  EXPECT_GE(Flagged(guard, Rows(500, 3, 3)), 0.99);
  EXPECT_LE(Flagged(guard, Rows(500, -3, 4)), 0.01);
  EXPECT_GE(guard.recall(), 0.95);
  EXPECT_LE(guard.false_alarms(), 0.005);
  EXPECT_GE(guard.threshold(), 0);
}

TEST(GuardTest, WhereTheKindsOverlapItGivesUpRecallRatherThanRaiseAlarms) {
  ASSERT_OK_AND_ASSIGN(const Guard guard, Guard::Fit(Rows(200, 0.5, 1), Rows(400, -0.5, 2)));
  EXPECT_GT(guard.threshold(), 0.2);
  EXPECT_LT(guard.recall(), 0.9);
  EXPECT_LE(Flagged(guard, Rows(2000, -0.5, 3)), 0.02);
}

TEST(GuardTest, ARowIsAsProhibitedAsTheWorstOfItsWindows) {
  ASSERT_OK_AND_ASSIGN(const Guard guard, Guard::Fit(Rows(100, 3, 1), Rows(200, -3, 2)));
  Features windows = Rows(9, -3, 4);
  EXPECT_FALSE(guard.Flags(windows));
  windows.push_back(Rows(1, 3, 3)[0]);
  EXPECT_TRUE(guard.Flags(windows));
  EXPECT_FALSE(guard.Flags(Features()));
}

TEST(GuardTest, TheSameExamplesGiveTheSameGuard) {
  ASSERT_OK_AND_ASSIGN(const Guard a, Guard::Fit(Rows(20, 1, 1), Rows(30, -1, 2)));
  ASSERT_OK_AND_ASSIGN(const Guard b, Guard::Fit(Rows(20, 1, 1), Rows(30, -1, 2)));
  for (const auto& row : Rows(10, 0, 3)) EXPECT_EQ(a.Score(row), b.Score(row));
  EXPECT_EQ(a.threshold(), b.threshold());
}

TEST(GuardTest, AKindThatIsRareInTheExamplesCountsAsMuch) {
  ASSERT_OK_AND_ASSIGN(const Guard guard, Guard::Fit(Rows(15, 2, 1), Rows(1500, -2, 2)));
  EXPECT_GE(Flagged(guard, Rows(500, 2, 3)), 0.95);
}

TEST(GuardTest, ExamplesThatCannotBeUsedAreRefused) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const Features good = Rows(20, 1, 1);
  EXPECT_THAT(Guard::Fit(Rows(9, 1, 1), good), StatusIs(kInvalid, "GUARD_EXAMPLES_INVALID"));
  EXPECT_THAT(Guard::Fit(good, {}), StatusIs(kInvalid, "GUARD_EXAMPLES_INVALID"));
  Features other = good;
  other[7].pop_back();
  EXPECT_THAT(Guard::Fit(good, other), StatusIs(kInvalid, "GUARD_EXAMPLES_INVALID"));
  other = good;
  other[7][7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Guard::Fit(other, good), StatusIs(kInvalid, "GUARD_EXAMPLES_INVALID"));
}

}  // namespace
}  // namespace ballast::worker::screening
