// SPDX-License-Identifier: Apache-2.0
// What jobs use and cost, and what is left of those that are deleted.
#include "server/core/usage.h"

#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/job_catalog.h"
#include "server/core/job_protection.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

v1::Money MakeMoney(const std::string& currency, int64_t units, int32_t nanos) {
  v1::Money money;
  money.set_currency_code(currency);
  money.set_units(units);
  money.set_nanos(nanos);
  return money;
}

class UsageTest : public CoreFixture {
 protected:
  void SetUp() override {
    price_ = MakeMoney("USD", 2, 500'000'000);
    CoreFixture::SetUp();
  }
  std::vector<v1::MonthlyUsage> Months(const std::string& tenant) {
    v1::ListMonthlyUsageRequest request;
    const auto response = usage_.List(tenant, request);
    EXPECT_OK(response);
    return {response->months().begin(), response->months().end()};
  }
  std::string RunOne(const std::string& tenant = "acme") {
    const std::string name = CreateJob(tenant);
    Sync(FinishedDelta("w1", Idle("w1").work().lease()));
    EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
    return name;
  }
  absl::Status Delete(const std::string& name, const std::string& etag = "") {
    return jobs_->Delete("acme", Parse(name), etag);
  }

  UsageCatalog usage_{store_};
};

TEST_F(UsageTest, CostsAreRoundedToBillionths) {
  EXPECT_EQ(CostOf(MakeMoney("USD", 2, 500'000'000), 3'000'000).units(), 7);
  EXPECT_EQ(CostOf(MakeMoney("USD", 2, 500'000'000), 3'000'000).nanos(), 500'000'000);
  EXPECT_EQ(CostOf(MakeMoney("USD", 0, 1), 499'999).nanos(), 0);
  EXPECT_EQ(CostOf(MakeMoney("USD", 0, 1), 500'000).nanos(), 1);
  // A million of a currency's units for a million tokens, and more tokens than anybody has.
  EXPECT_EQ(CostOf(MakeMoney("USD", 1'000'000, 0), 1'000'000'000'000).units(), 1'000'000'000'000);
  EXPECT_EQ(CostOf({}, 1'000'000).currency_code(), "");
}

TEST_F(UsageTest, AJobTellsItsEstimateItsUsageAndItsCost) {
  const std::string name = RunOne();
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.estimate().cost().SerializeAsString(),
            CostOf(price_, job.estimate().total_tokens()).SerializeAsString());
  EXPECT_EQ(job.usage().trained_tokens(), 7000);
  EXPECT_EQ(job.usage().cost().nanos(), 17'500'000);
  const auto months = Months("acme");
  ASSERT_THAT(months, SizeIs(1));
  EXPECT_EQ(months[0].month(), "2023-11");
  EXPECT_EQ(months[0].jobs(), 1);
  EXPECT_EQ(months[0].trained_tokens(), 7000);
  ASSERT_EQ(months[0].costs_size(), 1);
  EXPECT_EQ(months[0].costs(0).nanos(), 17'500'000);
  EXPECT_THAT(Months("other"), IsEmpty());
}

TEST_F(UsageTest, MonthsAndCurrenciesAreKeptApart) {
  RunOne();
  const std::string of_old_price = CreateJob();
  price_ = MakeMoney("EUR", 1, 0);
  Sync(FinishedDelta("w1", Idle("w1").work().lease()));
  EXPECT_EQ(Job(of_old_price).usage().cost().currency_code(), "USD");
  RunOne();
  now_ += absl::Hours(24 * 31);
  RunOne();
  const auto months = Months("acme");
  ASSERT_THAT(months, SizeIs(2));
  EXPECT_EQ(months[0].month(), "2023-12");
  EXPECT_EQ(months[0].jobs(), 1);
  EXPECT_EQ(months[1].jobs(), 3);
  ASSERT_EQ(months[1].costs_size(), 2);
  EXPECT_EQ(months[1].costs(0).nanos(), 35'000'000);
  EXPECT_EQ(months[1].costs(1).currency_code(), "EUR");
}

TEST_F(UsageTest, ThePlatformsFaultsCostNothing) {
  const std::string name = CreateJob();
  for (int i = 0; i < 3; ++i) {
    const auto lease = Idle("w1").work().lease();
    SynchronizeRequest request = Finished("w1", lease);
    request.mutable_finished()->mutable_error()->set_kind(v1::JobError::PLATFORM);
    request.mutable_finished()->mutable_error()->set_reason("OUT_OF_MEMORY");
    auto& state = *request.mutable_finished()->mutable_final_state();
    *state.mutable_lease() = lease;
    state.set_step(3);
    state.set_total_steps(7);
    state.set_trained_tokens(3000);
    request.set_draining(true);
    Sync(request);
    now_ += absl::Minutes(1);
  }
  EXPECT_EQ(Job(name).state(), FineTuningJob::FAILED);
  EXPECT_EQ(Job(name).usage().trained_tokens(), 3000);
  EXPECT_EQ(Job(name).usage().cost().units(), 0);
  EXPECT_EQ(Job(name).usage().cost().nanos(), 0);
  EXPECT_EQ(Job(name).usage().cost().currency_code(), "USD");
}

TEST_F(UsageTest, WhatNeverTrainedIsInNoMonth) {
  Cancel(CreateJob());
  EXPECT_THAT(Months("acme"), IsEmpty());
}

TEST_F(UsageTest, WithoutAPriceThereIsNoCost) {
  price_.Clear();
  const FineTuningJob job = Job(RunOne());
  EXPECT_FALSE(job.estimate().has_cost());
  EXPECT_FALSE(job.usage().has_cost());
  EXPECT_EQ(Months("acme")[0].costs_size(), 0);
}

TEST_F(UsageTest, ADeletedJobIsGoneAndItsUsageStays) {
  const std::string name = RunOne();
  EXPECT_THAT(Delete(name, "other"), StatusIs(absl::StatusCode::kAborted, "ETAG_MISMATCH"));
  EXPECT_OK(Delete(name, Job(name).etag()));
  EXPECT_THAT(jobs_->Get(now_, "acme", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(Delete(name), StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(Garbage(), Contains("jobs/acme/" + Parse(name).id));
  EXPECT_EQ(Months("acme")[0].jobs(), 1);
  v1::ListFineTuningJobsRequest list;
  list.set_parent("tenants/acme");
  EXPECT_EQ(jobs_->List(now_, "acme", list)->fine_tuning_jobs_size(), 0);
  EXPECT_THAT(jobs_->GetDelta("acme", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "DELTA_NOT_FOUND"));
  v1::ListFineTuningJobEventsRequest events;
  events.set_parent(name);
  EXPECT_THAT(jobs_->ListEvents("acme", events),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(jobs_->Resume(now_, "acme", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  // Operators still know what it was trained under.
  const auto protection = FindJobProtection(store_, Parse(name));
  ASSERT_OK(protection);
  EXPECT_EQ(protection->vector(), "vectors/vec-1");
}

TEST_F(UsageTest, PagesAreFullAlsoBetweenDeletedJobs) {
  std::vector<std::string> names;
  for (int i = 0; i < 9; ++i) names.push_back(RunOne());
  for (const int i : {0, 3, 4, 5, 8}) ASSERT_OK(Delete(names[static_cast<size_t>(i)]));
  v1::ListFineTuningJobsRequest list;
  list.set_parent("tenants/acme");
  list.set_page_size(2);
  std::vector<std::string> seen;
  do {
    ASSERT_OK_AND_ASSIGN(const auto page, jobs_->List(now_, "acme", list));
    EXPECT_EQ(page.fine_tuning_jobs_size(), 2);
    for (const auto& job : page.fine_tuning_jobs()) seen.push_back(job.name());
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_THAT(seen, ::testing::ElementsAre(names[7], names[6], names[2], names[1]));
}

TEST_F(UsageTest, ARepeatedRequestWhoseJobWasDeletedSaysSo) {
  auto request = JobRequest("acme");
  request.set_request_id("0b6f0f0e-9a2f-4d3a-8f9a-2d8f0f6d1c11");
  ASSERT_OK_AND_ASSIGN(const FineTuningJob job, jobs_->Create(now_, "acme", request));
  Cancel(job.name());
  ASSERT_OK(Delete(job.name()));
  EXPECT_THAT(jobs_->Create(now_, "acme", request), StatusIs(kPrecondition, "JOB_DELETED"));
}

TEST_F(UsageTest, ADeltaThatNobodyDecidedOnCostsNothing) {
  SetGate();
  const std::string name = CreateWithheldJob();
  EXPECT_FALSE(Job(name).has_usage());
  now_ += kWithheldExpiry + absl::Hours(1);
  ASSERT_OK(withheld_->Enter(now_));
  EXPECT_EQ(Job(name).state(), FineTuningJob::FAILED);
  EXPECT_GT(Job(name).usage().trained_tokens(), 0);
  EXPECT_EQ(Job(name).usage().cost().nanos(), 0);
}

TEST_F(UsageTest, StepsThatAreTrainedAgainCountOnce) {
  const std::string name = CreateJob();
  const auto report = [&](const std::string& worker, const worker::v1::Lease& lease, int step) {
    SynchronizeRequest request = Finished(worker, lease);
    auto& state = *request.mutable_finished()->mutable_final_state();
    *state.mutable_lease() = lease;
    state.set_step(step);
    state.set_total_steps(7);
    state.set_trained_tokens(int64_t{1000} * step);
    return request;
  };
  auto request = report("w1", Idle("w1").work().lease(), 6);
  request.mutable_finished()->mutable_handed_back();
  request.set_draining(true);
  Sync(request);
  request = report("w2", Idle("w2").work().lease(), 2);
  Cancel(name);
  request.mutable_finished()->mutable_cancelled();
  Sync(request);
  EXPECT_EQ(Job(name).state(), FineTuningJob::CANCELLED);
  EXPECT_EQ(Job(name).usage().trained_tokens(), 6000);
}

TEST_F(UsageTest, AJobThatHasNotEndedIsNotDeleted) {
  const std::string name = CreateJob();
  EXPECT_THAT(Delete(name), StatusIs(kPrecondition, "JOB_ACTIVE"));
  Idle("w1");
  EXPECT_THAT(Delete(name), StatusIs(kPrecondition, "JOB_ACTIVE"));
  EXPECT_THAT(jobs_->Delete("other", Parse(name), ""),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  SetGate();
  EXPECT_THAT(Delete(CreateWithheldJob()), StatusIs(kPrecondition, "JOB_WITHHELD"));
}

TEST_F(UsageTest, WhoDeletesWhatHasRunIsNotFirstForIt) {
  const std::string first = RunOne();
  const std::string waiting = CreateJob("other");
  CreateJob("other");
  ASSERT_OK(Delete(first));
  CreateJob();
  EXPECT_EQ(Idle("w1").work().lease().resource(), waiting);
}

}  // namespace
}  // namespace ballast::server
