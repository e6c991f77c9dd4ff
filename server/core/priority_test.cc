// SPDX-License-Identifier: Apache-2.0
// Priority among the jobs of one tenant, which takes nothing from another.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/fair_share.h"
#include "server/core/records.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;

class PriorityTest : public CoreFixture {
 protected:
  std::string Create(const std::string& tenant, int priority, int epochs = 2) {
    v1::CreateFineTuningJobRequest request = JobRequest(tenant);
    request.mutable_fine_tuning_job()->set_priority(priority);
    request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_epochs(epochs);
    const auto job = jobs_->Create(now_, tenant, request);
    EXPECT_OK(job);
    return job.ok() ? job->name() : "";
  }
  std::string Next() {
    const auto response = Idle(absl::StrCat("next-", ++workers_));
    return response.has_work() ? response.work().lease().resource() : "";
  }
  std::vector<std::string> NextOnes(int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back(Next());
    return names;
  }
  std::map<std::string, int> TenantsOfNext(int count) {
    std::map<std::string, int> found;
    for (const std::string& name : NextOnes(count)) ++found[Parse(name).tenant];
    return found;
  }
  int64_t TagOf(const std::string& name) {
    JobRecord record;
    EXPECT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
      const TenantName parsed = Parse(name);
      BALLAST_ASSIGN_OR_RETURN(auto found, GetRecord<JobRecord>(tx, parsed.tenant, parsed.id));
      record = found.value_or(JobRecord());
      return absl::OkStatus();
    }));
    return record.start_tag();
  }

 private:
  int workers_ = 0;
};

TEST_F(PriorityTest, HigherOnesGoFirstAndEqualOnesInTheirOrder) {
  const std::string usual_1 = Create("acme", 0), usual_2 = Create("acme", 0);
  const std::string low = Create("acme", -3);
  const std::string high_1 = Create("acme", 5), high_2 = Create("acme", 5);
  const std::string highest = Create("acme", 10);
  const std::string usual_3 = Create("acme", 0);
  EXPECT_EQ(Job(highest).queue_position(), 0);
  EXPECT_EQ(Job(high_2).queue_position(), 2);
  EXPECT_EQ(Job(low).queue_position(), 6);
  EXPECT_EQ(Job(highest).priority(), 10);
  EXPECT_THAT(NextOnes(7), ElementsAre(highest, high_1, high_2, usual_1, usual_2, usual_3, low));
}

TEST_F(PriorityTest, TagsLieEndToEndWhateverComesAndGoes) {
  const std::string a = Create("acme", 0), b = Create("acme", 0, /*epochs=*/4);
  const int64_t cost = TagOf(b) - TagOf(a);
  const std::string high = Create("acme", 1, /*epochs=*/4);
  EXPECT_EQ(TagOf(a), TagOf(high) + 2 * cost);
  EXPECT_EQ(TagOf(b), TagOf(a) + cost);
  const std::string last = Create("acme", 0);
  EXPECT_EQ(TagOf(last), TagOf(b) + 2 * cost);
  Cancel(a);
  EXPECT_EQ(TagOf(b), TagOf(high) + 2 * cost);
  EXPECT_EQ(TagOf(last), TagOf(b) + 2 * cost);
  EXPECT_EQ(TagOf(Create("acme", 0)), TagOf(last) + cost);
  EXPECT_EQ(TagOf(Create("acme", 1)), TagOf(high) + 2 * cost);
}

TEST_F(PriorityTest, PrioritiesTakeNothingFromOthers) {
  for (int i = 0; i < 30; ++i) Create("calm", 0);
  for (int i = 0; i < 30; ++i) Create("pushy", 0);
  // Whoever asks for the highest priority all the time still gets half.
  std::map<std::string, int> found;
  for (int i = 0; i < 30; ++i) {
    Create("pushy", i % 10 + 1);
    ++found[Parse(Next()).tenant];
  }
  EXPECT_NEAR(found["calm"], 15, 1);
}

TEST_F(PriorityTest, WhatRunsCountsBeforeAHigherPriority) {
  Create("calm", 0);
  Create("calm", 0);
  Create("pushy", -10);
  EXPECT_THAT(TenantsOfNext(2), ElementsAre(std::pair("calm", 1), std::pair("pushy", 1)));
  // One of the pushy one's runs: its next, of whatever priority, comes after it.
  for (int priority = -9; priority <= 10; ++priority) Create("pushy", priority);
  EXPECT_EQ(Parse(Next()).tenant, "calm");
}

TEST_F(PriorityTest, AResumedJobIsPlacedByItsPriority) {
  const std::string high = Create("acme", 3);
  ASSERT_OK(jobs_->Pause(now_, "acme", Parse(high)));
  const std::string usual = Create("acme", 0);
  ASSERT_OK(jobs_->Resume(now_, "acme", Parse(high)));
  EXPECT_THAT(NextOnes(2), ElementsAre(high, usual));
}

TEST_F(PriorityTest, AJobThatComesBackKeepsItsPlace) {
  const std::string usual = Create("acme", 0);
  const auto response = Idle("lost");
  ASSERT_EQ(response.work().lease().resource(), usual);
  const std::string high = Create("acme", 3);
  now_ += absl::Minutes(1);  // the worker is silent for longer than a lease
  ASSERT_OK(plane_->Enter(now_));
  ASSERT_EQ(Job(usual).state(), v1::FineTuningJob::QUEUED);
  EXPECT_THAT(NextOnes(2), ElementsAre(usual, high));
}

// Its tags lie behind virtual time, since it may run only one.
TEST_F(PriorityTest, HoldsForATenantAtItsLimit) {
  quotas_ = Quotas({}, {{"acme", {.max_running_jobs = 1}}});
  const std::string running = Create("acme", 0);
  ASSERT_EQ(Next(), running);
  const std::string usual_1 = Create("acme", 0), usual_2 = Create("acme", 0);
  for (int i = 0; i < 20; ++i) Create("other", 0);
  NextOnes(20);
  const std::string usual_3 = Create("acme", 0), high = Create("acme", 4);
  EXPECT_EQ(Job(high).queue_position(), 0);
  EXPECT_EQ(Job(usual_1).queue_position(), 1);
  EXPECT_EQ(Job(usual_2).queue_position(), 2);
  EXPECT_EQ(Job(usual_3).queue_position(), 3);
}

TEST_F(PriorityTest, UnfreezingKeepsTheOrder) {
  const std::string usual = Create("acme", 0), low = Create("acme", -1), high = Create("acme", 1);
  ASSERT_OK(store_.Update([&](Transaction& tx) { return LineUpAnew(tx, "acme", 1, now_); }));
  EXPECT_THAT(NextOnes(3), ElementsAre(high, usual, low));
}

TEST_F(PriorityTest, TheLimitOfWaitingJobsIsExactWhereItIsReached) {
  quotas_ = Quotas({.max_queued_jobs = 3});
  std::vector<std::string> names;
  for (int i = 0; i < 3; ++i) names.push_back(Create("acme", 0));
  const auto refused = [&] { return jobs_->Create(now_, "acme", JobRequest("acme")); };
  EXPECT_THAT(refused(), StatusIs(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS"));
  const auto work = Idle("w").work();  // one runs, and may come back
  EXPECT_NE(Create("acme", 0), "");
  EXPECT_THAT(refused(), StatusIs(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS"));
  now_ += absl::Minutes(1);
  ASSERT_OK(plane_->Enter(now_));
  EXPECT_THAT(refused(), StatusIs(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS"));
  for (const std::string& name : names) Cancel(name);
  EXPECT_NE(Create("acme", 0), "");
  EXPECT_NE(Create("acme", 0), "");
  EXPECT_THAT(refused(), StatusIs(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS"));
}

TEST_F(PriorityTest, OutOfRangeIsRefused) {
  for (const int priority : {-11, 11, 1'000'000'000, -2'000'000'000}) {
    v1::CreateFineTuningJobRequest request = JobRequest("acme");
    request.mutable_fine_tuning_job()->set_priority(priority);
    EXPECT_THAT(jobs_->Create(now_, "acme", request),
                StatusIs(absl::StatusCode::kInvalidArgument, "PRIORITY_OUT_OF_RANGE"));
  }
}

}  // namespace
}  // namespace ballast::server
