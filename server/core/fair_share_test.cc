// SPDX-License-Identifier: Apache-2.0
// Who gets the workers when many wait, and how much one may have.
#include "server/core/fair_share.h"

#include <map>
#include <string>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using v1::FineTuningJob;

constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

class FairShareTest : public CoreFixture {
 protected:
  void SetQuota(const std::string& tenant, const TenantQuota& quota) {
    by_tenant_[tenant] = quota;
    quotas_ = Quotas({}, by_tenant_);
  }

  std::string Create(const std::string& tenant, int epochs = 2) {
    v1::CreateFineTuningJobRequest request = JobRequest(tenant);
    request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_epochs(epochs);
    const auto job = jobs_->Create(now_, tenant, request);
    EXPECT_OK(job);
    return job.ok() ? job->name() : "";
  }
  void CreateMany(const std::string& tenant, int count, int epochs = 2) {
    for (int i = 0; i < count; ++i) Create(tenant, epochs);
  }

  // Tenant whose job the next worker gets.
  std::string Next() {
    const auto response = Idle("next-" + std::to_string(++workers_));
    EXPECT_TRUE(response.has_work());
    return response.has_work() ? Parse(response.work().lease().resource()).tenant : "";
  }
  // How many of the next `count` jobs are of each tenant.
  std::map<std::string, int> NextOnes(int count) {
    std::map<std::string, int> found;
    for (int i = 0; i < count; ++i) ++found[Next()];
    return found;
  }

 private:
  std::map<std::string, TenantQuota> by_tenant_;
  int workers_ = 0;
};

TEST_F(FairShareTest, ManyJobsOfOneDoNotDelayAnother) {
  CreateMany("busy", 100);
  EXPECT_EQ(Next(), "busy");
  EXPECT_EQ(Next(), "busy");
  Create("calm");
  EXPECT_EQ(Next(), "calm");
  EXPECT_EQ(Next(), "busy");
}

TEST_F(FairShareTest, EqualWeightsTakeTurns) {
  CreateMany("a", 20);
  CreateMany("b", 20);
  CreateMany("c", 20);
  const auto found = NextOnes(30);
  for (const char* tenant : {"a", "b", "c"}) EXPECT_EQ(found.at(tenant), 10) << tenant;
}

TEST_F(FairShareTest, WeightsShareTheWork) {
  SetQuota("heavy", {.weight = 3});
  CreateMany("heavy", 40);
  CreateMany("light", 40);
  const auto found = NextOnes(40);
  EXPECT_NEAR(found.at("heavy"), 30, 1);
  EXPECT_NEAR(found.at("light"), 10, 1);
}

TEST_F(FairShareTest, WorkCountsByItsTokens) {
  CreateMany("long", 20, /*epochs=*/6);
  CreateMany("short", 60, /*epochs=*/2);
  const auto found = NextOnes(40);
  EXPECT_NEAR(found.at("short"), 30, 1);
  EXPECT_NEAR(found.at("long"), 10, 1);
}

TEST_F(FairShareTest, WhoWasAwayHasSavedNothingUp) {
  CreateMany("early", 60);
  NextOnes(20);
  CreateMany("late", 20);
  const auto found = NextOnes(20);
  EXPECT_NEAR(found.at("late"), 10, 1);
}

TEST_F(FairShareTest, AnIdleTimeForgetsWhoHadMuch) {
  CreateMany("a", 20);
  NextOnes(20);
  // Nothing waits any more.
  CreateMany("b", 20);
  CreateMany("a", 20);
  const auto found = NextOnes(20);
  EXPECT_NEAR(found.at("a"), 10, 1);
}

TEST_F(FairShareTest, WhatWasCancelledBeforeItRanCostsNothing) {
  std::vector<std::string> cancelled;
  for (int i = 0; i < 30; ++i) cancelled.push_back(Create("acme"));
  for (const std::string& name : cancelled) Cancel(name);
  Create("acme");
  CreateMany("other", 5);
  EXPECT_EQ(NextOnes(2).at("acme"), 1);
}

TEST_F(FairShareTest, WhatWasPausedHasSavedNothingUp) {
  std::vector<std::string> paused;
  for (int i = 0; i < 20; ++i) {
    paused.push_back(Create("acme"));
    ASSERT_OK(jobs_->Pause(now_, "acme", Parse(paused.back())));
  }
  CreateMany("other", 60);
  NextOnes(30);
  for (const std::string& name : paused) ASSERT_OK(jobs_->Resume(now_, "acme", Parse(name)));
  EXPECT_NEAR(NextOnes(20).at("acme"), 10, 1);
}

TEST_F(FairShareTest, WhatWasFrozenHasSavedNothingUp) {
  CreateMany("acme", 20);
  ASSERT_OK(
      store_.Update([&](Transaction& tx) { return DrawWithheld(tx, "acme", /*budget=*/1, now_); }));
  CreateMany("other", 60);
  NextOnes(30);
  ASSERT_OK(standings_->Unfreeze(now_, "op", "acme", "they called"));
  EXPECT_NEAR(NextOnes(20).at("acme"), 10, 1);
}

TEST_F(FairShareTest, VirtualTimeDoesNotGoBackWithItsJobs) {
  std::vector<std::string> done;
  for (int i = 0; i < 20; ++i) {
    done.push_back(Create("acme"));
    Sync(FinishedDelta("w", Idle("w").work().lease()));
  }
  CreateMany("waits", 3);
  for (const std::string& name : done) ASSERT_OK(jobs_->Delete("acme", Parse(name), ""));
  CreateMany("comes", 3);
  // Whoever comes does not go before all who wait.
  EXPECT_EQ(NextOnes(4).at("waits"), 2);
}

TEST_F(FairShareTest, ManyCancelledJobsHideNoPlace) {
  CreateMany("acme", 20);
  for (int i = 0; i < 300; ++i) Cancel(Create("acme"));
  CreateMany("other", 20);
  CreateMany("acme", 20);
  EXPECT_NEAR(NextOnes(20).at("acme"), 10, 1);
}

TEST_F(FairShareTest, JobsFromBeforeGoFirst) {
  const std::string dataset = AddDataset("acme");
  InsertQueuedJob("job-old", "baseModels/base");
  const std::string fresh = Create("other");
  ASSERT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows,
                             tx.ListByState(Kind::kJob, FineTuningJob::QUEUED, {}, 2));
    EXPECT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0].id, "job-old");
    BALLAST_ASSIGN_OR_RETURN(const auto old, FromRow<JobRecord>(rows[0]));
    EXPECT_FALSE(old.has_start_tag());
    EXPECT_EQ(rows[1].id, Parse(fresh).id);
    return absl::OkStatus();
  }));
}

TEST_F(FairShareTest, QueuedAndPausedJobsAreLimited) {
  SetQuota("acme", {.max_queued_jobs = 3});
  const std::string first = Create("acme");
  CreateMany("acme", 2);
  ASSERT_OK(jobs_->Pause(now_, "acme", Parse(first)));
  const auto refused = jobs_->Create(now_, "acme", JobRequest("acme"));
  EXPECT_THAT(refused, StatusIs(kExhausted, "QUOTA_QUEUED_JOBS"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("3 jobs are queued or paused"));
  // The same for a job that is only estimated, and nothing for another tenant.
  auto estimate = JobRequest("acme");
  estimate.set_validate_only(true);
  EXPECT_THAT(jobs_->Create(now_, "acme", estimate), StatusIs(kExhausted, "QUOTA_QUEUED_JOBS"));
  Create("other");
  EXPECT_TRUE(Idle("w1").has_work());
  Cancel(first);
  Create("acme");
}

TEST_F(FairShareTest, ARepeatedRequestIsAnsweredAlsoAtTheLimit) {
  SetQuota("acme", {.max_queued_jobs = 1});
  auto request = JobRequest("acme");
  request.set_request_id("0b6f0f0e-9a2f-4d3a-8f9a-2d8f0f6d1c11");
  ASSERT_OK_AND_ASSIGN(const FineTuningJob job, jobs_->Create(now_, "acme", request));
  ASSERT_OK_AND_ASSIGN(const FineTuningJob again, jobs_->Create(now_, "acme", request));
  EXPECT_EQ(again.name(), job.name());
}

TEST_F(FairShareTest, RunningJobsAreLimited) {
  SetQuota("acme", {.max_running_jobs = 1});
  CreateMany("acme", 3);
  const auto lease = Idle("w1").work().lease();
  EXPECT_TRUE(Idle("w2").has_idle());
  Create("other");
  EXPECT_EQ(Next(), "other");
  const auto next = Sync(FinishedDelta("w1", lease)).work().lease();
  EXPECT_EQ(Parse(next.resource()).tenant, "acme");
}

TEST_F(FairShareTest, AJobThatWasPassedOverIsFoundAgainWithinASecond) {
  SetQuota("acme", {.max_running_jobs = 1});
  CreateMany("acme", 2);
  CreateMany("other", 8);
  const auto lease = Idle("w1").work().lease();
  ASSERT_EQ(Parse(lease.resource()).tenant, "acme");
  // The queue goes on without it, and is not read from its beginning each time.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Next(), "other");
  EXPECT_EQ(Parse(Sync(FinishedDelta("w1", lease)).work().lease().resource()).tenant, "other");
  now_ += absl::Seconds(1);
  EXPECT_EQ(Next(), "acme");
  EXPECT_EQ(Next(), "other");
}

TEST_F(FairShareTest, AJobThatComesBackIsNextAtOnce) {
  CreateMany("acme", 1);
  CreateMany("other", 4);
  const auto lost = Idle("w1").work().lease();
  ASSERT_EQ(Parse(lost.resource()).tenant, "acme");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Next(), "other");
  now_ += absl::Minutes(1);  // beyond all leases
  EXPECT_EQ(Next(), "acme");
}

TEST_F(FairShareTest, BytesOfDataSetsAreLimited) {
  SetQuota("acme", {.max_dataset_bytes = 1000});
  v1::CreateDatasetRequest request;
  request.set_parent("tenants/acme");
  request.mutable_dataset()->set_base_model("baseModels/base");
  const auto upload = [&](int64_t size) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const v1::Dataset dataset, datasets_->Create(now_, "acme", request));
    const std::string id = dataset.name().substr(dataset.name().rfind('/') + 1);
    return datasets_->FinishUpload("acme", {"acme", id}, size, testing::kBaseDigest).status();
  };
  ASSERT_OK(upload(600));
  const auto none = [](const std::string&) -> absl::StatusOr<int64_t> { return 0; };
  EXPECT_OK(datasets_->CheckRoom(now_, "acme", 400, none));
  EXPECT_THAT(datasets_->CheckRoom(now_, "acme", 401, none),
              StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  EXPECT_THAT(upload(401), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  // The one that was refused is there, unfinished, with the bytes that it has.
  const auto room_beside = [&](const absl::StatusOr<int64_t>& unfinished) {
    return datasets_->CheckRoom(now_, "acme", 300, [&](const std::string&) { return unfinished; });
  };
  EXPECT_OK(room_beside(100));
  EXPECT_THAT(room_beside(101), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  // What cannot be looked up does not count as nothing.
  EXPECT_THAT(room_beside(MakeError(absl::StatusCode::kUnavailable, "OBJECT_STORE", "cut")),
              StatusIs(absl::StatusCode::kUnavailable, "OBJECT_STORE"));
  EXPECT_OK(upload(400));
  EXPECT_OK(datasets_->CheckRoom(now_, "other", int64_t{1} << 40, none));
}

}  // namespace
}  // namespace ballast::server
