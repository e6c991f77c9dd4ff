// SPDX-License-Identifier: Apache-2.0
// What jobs use and cost, and what is left of those that are deleted.
#include "server/core/usage.h"

#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/job_catalog.h"
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
  EXPECT_THAT(jobs_->Get("acme", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(Delete(name), StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(Garbage(), Contains("jobs/acme/" + Parse(name).id));
  EXPECT_EQ(Months("acme")[0].jobs(), 1);
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
