// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_hub.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/testing/fake_clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kTick = absl::Milliseconds(200);

class FakeWatcher : public Watcher {
 public:
  explicit FakeWatcher(int64_t seen = 0) : seen_(seen) {}
  void Poke() override { ++pokes; }
  void Show(std::shared_ptr<const v1::JobProgress> progress) override {
    steps.push_back(progress->step());
  }
  void Stopping() override { stopping = true; }
  int64_t seen() const override { return seen_; }

  int pokes = 0;
  bool stopping = false;
  std::vector<int64_t> steps;  // of the progress that it was shown

 private:
  const int64_t seen_;
};

class WatchHubTest : public ::testing::Test {
 protected:
  // Time goes on, and the hub does what it does then.
  void Pass(absl::Duration duration) {
    clock_.Advance(duration);
    hub_.Step(clock_.Now());
  }

  absl::StatusOr<std::vector<std::optional<int64_t>>> LastEvents(
      const std::vector<std::string>& jobs) {
    looks_.push_back(jobs);
    std::vector<std::optional<int64_t>> last;
    for (const std::string& job : jobs) {
      if (job == damaged_) return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT", "torn");
      const auto known = last_.find(job);
      last.push_back(known == last_.end() ? std::nullopt : std::optional<int64_t>(known->second));
    }
    if (away_) return MakeError(absl::StatusCode::kUnavailable, "STORE_IO", "away");
    return last;
  }

  ballast::testing::FakeClock clock_;
  std::map<std::string, int64_t> last_;  // events in the store
  std::map<std::string, int64_t> steps_;
  std::string damaged_;
  bool away_ = false;
  std::vector<std::vector<std::string>> looks_;
  std::vector<std::string> asked_for_progress_;
  WatchHub hub_{{[this](const auto& jobs) { return LastEvents(jobs); },
                 [this](const std::string& job) -> std::optional<v1::JobProgress> {
                   asked_for_progress_.push_back(job);
                   if (steps_.count(job) == 0) return std::nullopt;
                   v1::JobProgress progress;
                   progress.set_step(steps_[job]);
                   return progress;
                 }}};
};

TEST_F(WatchHubTest, AChangePokesThoseWhoFollowTheJob) {
  FakeWatcher one, other, elsewhere;
  hub_.Add("a", &one);
  hub_.Add("a", &other);
  hub_.Add("b", &elsewhere);
  EXPECT_EQ(hub_.count(), 3);
  hub_.Changed("a");
  hub_.Changed("nobody's");
  EXPECT_EQ(one.pokes, 1);
  EXPECT_EQ(other.pokes, 1);
  EXPECT_EQ(elsewhere.pokes, 0);
  hub_.Remove("a", &one);
  hub_.Remove("a", &one);
  hub_.Changed("a");
  EXPECT_EQ(one.pokes, 1);
  EXPECT_EQ(other.pokes, 2);
  EXPECT_EQ(hub_.count(), 2);
}

TEST_F(WatchHubTest, TimeAlonePokesNobody) {
  last_ = {{"a", 3}};
  // A cursor may lie behind the end.
  FakeWatcher at_the_end(3), behind(7);
  hub_.Add("a", &at_the_end);
  hub_.Add("a", &behind);
  for (int i = 0; i < 100; ++i) Pass(absl::Seconds(1));
  EXPECT_EQ(at_the_end.pokes, 0);
  EXPECT_EQ(behind.pokes, 0);
}

TEST_F(WatchHubTest, AChangeThatNobodyHasToldOfIsFound) {
  last_ = {{"a", 3}, {"b", 1}};
  FakeWatcher on_a(3), on_b(1);
  hub_.Add("a", &on_a);
  hub_.Add("b", &on_b);
  Pass(kTick);
  last_["a"] = 4;
  Pass(WatchHub::kLookPeriod);
  EXPECT_EQ(on_a.pokes, 1);
  EXPECT_EQ(on_b.pokes, 0);
}

TEST_F(WatchHubTest, AJobThatIsGonePokes) {
  FakeWatcher watcher(3);
  hub_.Add("gone", &watcher);
  Pass(WatchHub::kLookPeriod);
  EXPECT_EQ(watcher.pokes, 1);
}

TEST_F(WatchHubTest, EachJobHasItsTurnOnceInAPeriod) {
  constexpr int kJobs = 1000;
  std::vector<std::unique_ptr<FakeWatcher>> watchers;
  hub_.Step(clock_.Now());
  for (int i = 0; i < kJobs; ++i) {
    // Several who follow one job cost no more than one.
    for (int j = 0; j < 2; ++j) {
      watchers.push_back(std::make_unique<FakeWatcher>(1));
      hub_.Add(absl::StrCat("job-", i), watchers.back().get());
    }
  }
  const auto ticks = static_cast<int>(WatchHub::kLookPeriod / kTick);
  for (int i = 0; i < ticks; ++i) Pass(kTick);
  std::map<std::string, int> looked_at;
  for (const auto& jobs : looks_) {
    // Spread evenly.
    EXPECT_LE(jobs.size(), static_cast<size_t>(kJobs / ticks) + 1);
    for (const std::string& job : jobs) ++looked_at[job];
  }
  // But for the rounding of the last one.
  EXPECT_GE(looked_at.size(), static_cast<size_t>(kJobs - 1));
  for (const auto& [job, count] : looked_at) EXPECT_EQ(count, 1) << job;
}

TEST_F(WatchHubTest, WhereNoticesMayHaveBeenMissedAllJobsAreLookedAt) {
  constexpr int kJobs = 250;
  std::vector<std::unique_ptr<FakeWatcher>> watchers;
  for (int i = 0; i < kJobs; ++i) {
    const std::string job = absl::StrCat("job-", i);
    last_[job] = 1;
    watchers.push_back(std::make_unique<FakeWatcher>(1));
    hub_.Add(job, watchers.back().get());
  }
  hub_.Step(clock_.Now());
  looks_.clear();
  last_["job-17"] = 2;
  hub_.Missed();
  Pass(kTick);
  size_t looked_at = 0;
  for (const auto& jobs : looks_) {
    EXPECT_LE(jobs.size(), WatchHub::kMostAtOnce);
    looked_at += jobs.size();
  }
  EXPECT_EQ(looked_at, static_cast<size_t>(kJobs));
  EXPECT_EQ(watchers[17]->pokes, 1);
  EXPECT_EQ(watchers[18]->pokes, 0);
  // Once.
  looks_.clear();
  Pass(absl::ZeroDuration());
  EXPECT_THAT(looks_, IsEmpty());
}

TEST_F(WatchHubTest, WhatCouldNotBeLookedAtIsTriedAgainAtOnce) {
  last_ = {{"a", 2}};
  FakeWatcher watcher(1);
  hub_.Add("a", &watcher);
  away_ = true;
  Pass(WatchHub::kLookPeriod);
  EXPECT_EQ(watcher.pokes, 0);
  away_ = false;
  Pass(kTick);
  EXPECT_EQ(watcher.pokes, 1);
}

TEST_F(WatchHubTest, ADamagedRecordHindersOnlyThoseBesideIt) {
  std::vector<std::unique_ptr<FakeWatcher>> watchers;
  for (size_t i = 0; i < 2 * WatchHub::kMostAtOnce; ++i) {
    const std::string job = absl::StrCat("job-", 1000 + i);
    last_[job] = 2;
    watchers.push_back(std::make_unique<FakeWatcher>(1));
    hub_.Add(job, watchers.back().get());
  }
  damaged_ = "job-1000";
  Pass(WatchHub::kLookPeriod);
  EXPECT_EQ(watchers.back()->pokes, 1);
  looks_.clear();
  Pass(absl::ZeroDuration());
  EXPECT_THAT(looks_, IsEmpty());
}

TEST_F(WatchHubTest, ProgressIsShownOnceASecondAtMost) {
  FakeWatcher watcher;
  hub_.Add("a", &watcher);
  for (int step = 1; step <= 10; ++step) {
    steps_["a"] = step;
    hub_.Moved("a");
    hub_.Moved("nobody's");
    Pass(kTick);
  }
  EXPECT_THAT(watcher.steps, ElementsAre(1, 6));
  // What was not shown is shown later, and then there is nothing to show.
  for (int i = 0; i < 10; ++i) Pass(kTick);
  EXPECT_THAT(watcher.steps, ElementsAre(1, 6, 10));
  EXPECT_THAT(asked_for_progress_, ElementsAre("a", "a", "a"));
}

TEST_F(WatchHubTest, ProgressThatIsNotKnownIsNotShown) {
  FakeWatcher watcher;
  hub_.Add("a", &watcher);
  hub_.Moved("a");
  Pass(kTick);
  EXPECT_THAT(watcher.steps, IsEmpty());
  hub_.Moved("a");
  hub_.Remove("a", &watcher);
  Pass(kTick);
  EXPECT_THAT(asked_for_progress_, ElementsAre("a"));
}

TEST_F(WatchHubTest, DrainTellsAll) {
  FakeWatcher watcher;
  hub_.Add("a", &watcher);
  EXPECT_FALSE(hub_.draining());
  hub_.Drain();
  EXPECT_TRUE(hub_.draining());
  EXPECT_TRUE(watcher.stopping);
  EXPECT_EQ(watcher.pokes, 0);
}

}  // namespace
}  // namespace ballast::server
