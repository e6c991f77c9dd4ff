// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

constexpr absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

TEST(SlewedTimeTest, FollowsAWallClockThatIsRight) {
  SlewedTime time;
  for (int second = 0; second < 100; ++second) {
    EXPECT_EQ(time.At(kStart + absl::Seconds(second), absl::Seconds(7 + second)),
              kStart + absl::Seconds(second));
  }
}

TEST(SlewedTimeTest, AnHourForwardIsCaughtUpWithinTenHours) {
  SlewedTime time;
  time.At(kStart, absl::ZeroDuration());
  const auto at = [&](absl::Duration passed) {
    return time.At(kStart + absl::Hours(1) + passed, passed) - kStart;
  };
  EXPECT_EQ(at(absl::ZeroDuration()), absl::ZeroDuration());
  EXPECT_EQ(at(absl::Seconds(30)), absl::Seconds(33));
  EXPECT_EQ(at(absl::Hours(5)), absl::Hours(5.5));
  EXPECT_EQ(at(absl::Hours(10)), absl::Hours(11));
  EXPECT_EQ(at(absl::Hours(20)), absl::Hours(21));
}

TEST(SlewedTimeTest, AnHourBackNeverTurnsItBack) {
  SlewedTime time;
  time.At(kStart, absl::ZeroDuration());
  absl::Time last = kStart;
  for (int second = 1; second < 1000; ++second) {
    const absl::Duration passed = absl::Seconds(second);
    const absl::Time now = time.At(kStart - absl::Hours(1) + passed, passed);
    EXPECT_EQ(now - last, absl::Seconds(0.9));
    last = now;
  }
}

TEST(ClockTest, TheSystemsClockTellsTheTimeOfDay) {
  EXPECT_LT(absl::AbsDuration(Clock::System().Now() - absl::Now()), absl::Minutes(1));
}

}  // namespace
}  // namespace ballast
