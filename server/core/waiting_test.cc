// SPDX-License-Identifier: Apache-2.0
// What the owner of a job is told while it waits.
#include "server/core/waiting.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::testing::HasSubstr;
using v1::FineTuningJob;
using v1::Waiting;

class WaitingTest : public CoreFixture {
 protected:
  Waiting WaitingOf(const std::string& name) { return Job(name).waiting(); }
  // `count` workers of which each takes a job and a minute goes by.
  void TakeJobs(int count) {
    std::vector<std::pair<std::string, worker::v1::Lease>> working;
    for (int i = 0; i < count; ++i) {
      const std::string worker = absl::StrCat("w-", i);
      working.emplace_back(worker, Idle(worker).work().lease());
      for (int third = 0; third < 3; ++third) {
        now_ += absl::Seconds(20);
        for (const auto& [name, lease] : working) Busy(name, lease, 1);
      }
    }
  }
  void SetQuota(const TenantQuota& quota) { quotas_ = Quotas(quota); }
};

TEST_F(WaitingTest, AWorkerIsAllThatItWaitsFor) {
  const std::string name = CreateJob();
  const Waiting waiting = WaitingOf(name);
  EXPECT_EQ(waiting.reason(), Waiting::WORKERS_BUSY);
  EXPECT_THAT(waiting.message(), HasSubstr("busy"));
  EXPECT_EQ(FromTimestamp(waiting.since()), now_);
  EXPECT_FALSE(waiting.has_earliest_start()) << "nothing is known of how fast the queue moves";
  Idle("w-1");
  EXPECT_FALSE(Job(name).has_waiting()) << "it does not wait any more";
}

TEST_F(WaitingTest, SinceIsWhenItWasResumed) {
  const std::string name = CreateJob();
  ASSERT_OK(jobs_->Pause(now_, "acme", Parse(name)));
  EXPECT_FALSE(Job(name).has_waiting());
  now_ += absl::Hours(1);
  ASSERT_OK(jobs_->Resume(now_, "acme", Parse(name)));
  EXPECT_EQ(FromTimestamp(WaitingOf(name).since()), now_);
}

TEST_F(WaitingTest, SinceIsWhenItCameBack) {
  const std::string name = CreateJob();
  Idle("w-1");
  now_ += absl::Hours(1);
  ASSERT_OK(plane_->Enter(now_));
  ASSERT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(FromTimestamp(WaitingOf(name).since()), now_);
}

TEST_F(WaitingTest, AsManyRunAsMay) {
  SetQuota({.max_running_jobs = 1});
  CreateJob();
  const std::string second = CreateJob();
  Idle("w-1");
  EXPECT_EQ(WaitingOf(second).reason(), Waiting::RUNNING_LIMIT);
  EXPECT_THAT(WaitingOf(second).message(), HasSubstr("1 jobs of the tenant may run at once"));
}

TEST_F(WaitingTest, TheTenantIsFrozen) {
  const std::string name = CreateJob();
  ASSERT_OK(
      store_.Update([&](Transaction& tx) { return DrawWithheld(tx, "acme", /*budget=*/1, now_); }));
  EXPECT_EQ(WaitingOf(name).reason(), Waiting::TENANT_FROZEN);
  EXPECT_EQ(WaitingOf(name).message(), kFrozenMessage);
}

TEST_F(WaitingTest, TheBaseHasNoVector) {
  const std::string name = CreateJob();
  ASSERT_OK(vectors_->Retire("vec-1"));
  Idle("w-1");  // is told of no work, and the job why
  EXPECT_EQ(WaitingOf(name).reason(), Waiting::BASE_MODEL);
  AddActiveVector("vec-2", 2);
  EXPECT_EQ(WaitingOf(name).reason(), Waiting::WORKERS_BUSY) << "though no worker has looked yet";
}

TEST_F(WaitingTest, ItRestsAfterAnError) {
  const std::string name = CreateJob();
  const auto work = Idle("w-1").work();
  worker::v1::SynchronizeRequest failed = Finished("w-1", work.lease());
  failed.mutable_finished()->mutable_error()->set_kind(v1::JobError::PLATFORM);
  failed.mutable_finished()->mutable_error()->set_reason("DISK_FULL");
  Sync(failed);
  ASSERT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(WaitingOf(name).reason(), Waiting::RESTS_AFTER_ERROR);
  EXPECT_THAT(WaitingOf(name).message(), HasSubstr("tried again in 5s"));
  now_ += absl::Seconds(6);
  EXPECT_EQ(WaitingOf(name).reason(), Waiting::WORKERS_BUSY);
}

TEST_F(WaitingTest, StartsAreToldOnceTheQueueHasMoved) {
  for (int i = 0; i < 20; ++i) CreateJob();
  const std::string name = CreateJob();
  TakeJobs(5);
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.queue_position(), 15);  // 15 minutes, and one more until a worker is free
  ASSERT_TRUE(job.waiting().has_earliest_start());
  EXPECT_EQ(job.waiting().earliest_start().seconds(), 5 * 60);
  EXPECT_EQ(job.waiting().latest_start().seconds(), 60 * 60);
}

TEST_F(WaitingTest, ATenantWithoutOthersBeforeItStartsNext) {
  for (int i = 0; i < 8; ++i) CreateJob();
  TakeJobs(8);
  // By its tag it lies far behind virtual time, but nobody is between.
  const FineTuningJob job = Job(CreateJob());
  ASSERT_TRUE(job.waiting().has_earliest_start());
  EXPECT_EQ(job.waiting().earliest_start().seconds(), 0);
  EXPECT_EQ(job.waiting().latest_start().seconds(), 5 * 60);
}

TEST_F(WaitingTest, ListsSayWhyButNotHowLong) {
  for (int i = 0; i < 8; ++i) CreateJob();
  TakeJobs(4);
  v1::ListFineTuningJobsRequest request;
  request.set_parent("tenants/acme");
  request.set_page_size(2);
  ASSERT_OK_AND_ASSIGN(const auto page, jobs_->List(now_, "acme", request));
  for (const FineTuningJob& job : page.fine_tuning_jobs()) {
    EXPECT_EQ(job.waiting().reason(), Waiting::WORKERS_BUSY);
    EXPECT_FALSE(job.waiting().has_earliest_start());
  }
}

}  // namespace
}  // namespace ballast::server
