// SPDX-License-Identifier: Apache-2.0
// What the queue's pace tells of when a job starts: by rule, and against queues that are played
// out.
#include "server/core/queue_clock.h"

#include <algorithm>
#include <optional>
#include <queue>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace ballast::server {
namespace {

constexpr absl::Duration kLong = absl::Hours(100);

class QueueClockTest : public ::testing::Test {
 protected:
  // A job that waited for `waited` was taken `after` the last one.
  void Take(absl::Duration after, int64_t tokens, absl::Duration waited = kLong) {
    now_ += after;
    NoteTaken(clock_, tokens, waited, now_);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  QueueClockRecord clock_;
};

TEST_F(QueueClockTest, KnowsNothingBeforeItHasSeenTheQueueMove) {
  EXPECT_FALSE(StartOf(clock_, 1000).has_value());
  Take(absl::ZeroDuration(), 1000);
  EXPECT_FALSE(StartOf(clock_, 1000).has_value()) << "there is no time between yet";
  Take(absl::Seconds(60), 1000);
  EXPECT_FALSE(StartOf(clock_, 1000).has_value()) << "one is too few";
  Take(absl::Seconds(60), 1000);
  EXPECT_TRUE(StartOf(clock_, 1000).has_value());
}

TEST_F(QueueClockTest, BoundsLieAroundTheExpectationAndAreCoarse) {
  for (int i = 0; i < 11; ++i) Take(absl::Seconds(60), 1000);
  // 60 tasks before it, a minute each: an hour.
  const auto bounds = StartOf(clock_, 60'000);
  ASSERT_TRUE(bounds.has_value());
  EXPECT_EQ(bounds->earliest, absl::Minutes(15));
  EXPECT_EQ(bounds->latest, absl::Hours(4));
}

TEST_F(QueueClockTest, TheNextOneStartsWhenAWorkerIsFree) {
  for (int i = 0; i < 11; ++i) Take(absl::Seconds(60), 1000);
  for (const int64_t tokens : {int64_t{0}, int64_t{-5000}}) {
    const auto bounds = StartOf(clock_, tokens);
    ASSERT_TRUE(bounds.has_value());
    EXPECT_EQ(bounds->earliest, absl::ZeroDuration());
    EXPECT_EQ(bounds->latest, absl::Minutes(5));
  }
}

TEST_F(QueueClockTest, FarAwayHasNoLatest) {
  for (int i = 0; i < 11; ++i) Take(absl::Seconds(60), 1000);
  const auto bounds = StartOf(clock_, int64_t{1'000'000'000});
  ASSERT_TRUE(bounds.has_value());
  EXPECT_EQ(bounds->earliest, absl::Hours(72));
  EXPECT_FALSE(bounds->latest.has_value());
}

TEST_F(QueueClockTest, TimesWithoutWaitingJobsDoNotCount) {
  for (int i = 0; i < 11; ++i) Take(absl::Seconds(60), 1000);
  const auto before = StartOf(clock_, 60'000);
  // A day on which now and then a job came and was taken at once.
  for (int i = 0; i < 20; ++i) Take(absl::Hours(1), 1000, absl::ZeroDuration());
  const auto after = StartOf(clock_, 60'000);
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->earliest, before->earliest);
  EXPECT_EQ(after->latest, before->latest);
}

TEST_F(QueueClockTest, AClockThatWasSetBackCountsForNothing) {
  for (int i = 0; i < 11; ++i) Take(absl::Seconds(60), 1000);
  const double seconds = clock_.busy_seconds();
  Take(-absl::Hours(1), 1000);
  EXPECT_EQ(clock_.busy_seconds(), seconds);
}

TEST_F(QueueClockTest, OldTimesAreForgotten) {
  for (int i = 0; i < 200; ++i) Take(absl::Seconds(60), 1000);
  for (int i = 0; i < 1200; ++i) Take(absl::Seconds(10), 1000);
  const auto bounds = StartOf(clock_, 600'000);  // 600 tasks of 10 s: 100 minutes
  ASSERT_TRUE(bounds.has_value());
  EXPECT_EQ(bounds->earliest, absl::Minutes(15));
  EXPECT_LE(bounds->latest, absl::Hours(12));
}

// Workers that take jobs of different lengths as fast as they can: nearly every job starts between
// the bounds that it was told when it came.
TEST_F(QueueClockTest, JobsStartWithinTheirBounds) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int64_t> tokens(1'000, 9'000);
  struct Job {
    int64_t tag, tokens;
    absl::Time told;
    std::optional<Bounds> bounds;
  };
  std::deque<Job> queue;
  std::priority_queue<absl::Time, std::vector<absl::Time>, std::greater<>> busy;  // workers, until
  for (int i = 0; i < 5; ++i) busy.push(now_);
  int64_t end = 0, virtual_time = 0;
  int told = 0, kept = 0;
  for (int i = 0; i < 2000; ++i) {
    // A hundred wait at first, and then one comes for each that goes.
    while (queue.size() < 100) {
      Job job{std::max(end, virtual_time), tokens(random), now_, std::nullopt};
      job.bounds = StartOf(clock_, job.tag - virtual_time);
      end = job.tag + job.tokens;
      queue.push_back(job);
    }
    now_ = busy.top();
    busy.pop();
    const Job job = queue.front();
    queue.pop_front();
    NoteTaken(clock_, job.tag - virtual_time, now_ - job.told, now_);
    virtual_time = job.tag;
    busy.push(now_ + absl::Milliseconds(job.tokens * 10));
    if (!job.bounds.has_value()) continue;
    ++told;
    const absl::Duration waited = now_ - job.told;
    kept += waited >= job.bounds->earliest && waited <= job.bounds->latest.value_or(kLong);
  }
  EXPECT_GT(told, 1500);
  EXPECT_GE(kept, told * 99 / 100);
}

}  // namespace
}  // namespace ballast::server
