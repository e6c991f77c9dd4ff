// SPDX-License-Identifier: Apache-2.0
// What tenants see of the progress of a job by row: evaluation points and nothing between, since
// how fast steps go tells how the rows are split (S2).
#include <string>

#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/control_plane.h"
#include "server/core/records.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using worker::v1::SynchronizeRequest;

class ByRowProgressTest : public CoreFixture {
 protected:
  void SetUp() override {
    CoreFixture::SetUp();
    ChangeBase(
        [&](BaseModelRecord& base) { base.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW); });
    name_ = CreateJob();
    lease_ = Idle("w1").work().lease();
  }

  // A state of 100 steps, with an evaluation every 10 of them from 0 on.
  void Fill(int64_t step, int evaluations, SynchronizeRequest::Busy& busy) {
    *busy.mutable_lease() = lease_;
    busy.set_step(step);
    busy.set_total_steps(100);
    busy.set_trained_tokens(1000 * step);
    for (int i = 0; i < evaluations; ++i) busy.add_evaluations()->set_step(int64_t{10} * i);
  }

  void Busy(int64_t step, int evaluations, const std::string& worker = "w1") {
    now_ += absl::Seconds(7);
    SynchronizeRequest request = Request(worker);
    Fill(step, evaluations, *request.mutable_busy());
    Sync(request);
  }

  std::string name_;
  worker::v1::Lease lease_;
};

TEST_F(ByRowProgressTest, MovesWithEvaluationsOnly) {
  Busy(1, 0);
  EXPECT_FALSE(plane_->LiveProgress(name_).has_value());
  Busy(2, 1);
  EXPECT_EQ(plane_->LiveProgress(name_)->step(), 2);
  const std::string shown = plane_->LiveProgress(name_)->SerializeAsString();
  for (int step = 3; step < 10; ++step) {
    Busy(step, 1);
    EXPECT_EQ(plane_->LiveProgress(name_)->SerializeAsString(), shown);
  }
  Busy(10, 2);
  EXPECT_EQ(plane_->LiveProgress(name_)->step(), 10);
  EXPECT_EQ(plane_->LiveProgress(name_)->trained_tokens(), 10'000);
  EXPECT_EQ(plane_->LiveProgress(name_)->time_left().seconds(), 660);  // 630 s, in whole minutes

  // A new server knows the policy too.
  Restart();
  Busy(11, 0);
  EXPECT_FALSE(plane_->LiveProgress(name_).has_value());
}

TEST_F(ByRowProgressTest, AfterARestartSpeedIsMeasuredFromTheNextEvaluation) {
  Busy(20, 3);
  Restart();
  now_ += absl::Seconds(100);
  Busy(20, 3);  // as 107 s ago: how long ago is not known any more
  Busy(30, 4);
  EXPECT_FALSE(plane_->LiveProgress(name_)->has_time_left());
  now_ += absl::Seconds(93);
  Busy(40, 5);
  EXPECT_EQ(plane_->LiveProgress(name_)->time_left().seconds(), 600);  // 10 s a step
  SynchronizeRequest finished = FinishedDelta("w1", lease_);
  Fill(50, 6, *finished.mutable_finished()->mutable_final_state());
  now_ += absl::Seconds(100);
  Sync(finished);  // 20,000 tokens in the 200 s since step 30
  EXPECT_EQ(Job(CreateJob()).estimate().running_time().seconds(), 300);
}

TEST_F(ByRowProgressTest, ThatIsTakenUpAgainIsShownAtItsLastEvaluation) {
  Busy(10, 2);
  WriteCheckpoint("w1", lease_, 17);
  now_ += absl::Seconds(31);
  lease_ = Idle("w2").work().lease();
  EXPECT_EQ(Job(name_).progress().step(), 10);

  // An attempt that ends before its first evaluation has nothing new to tell.
  Busy(0, 0, "w2");
  SynchronizeRequest request = Request("w2");
  auto& finished = *request.mutable_finished();
  *finished.mutable_lease() = lease_;
  finished.mutable_handed_back();
  Fill(0, 0, *finished.mutable_final_state());
  Sync(request);
  EXPECT_EQ(Job(name_).progress().step(), 10);
  EXPECT_EQ(Job(name_).progress().trained_tokens(), 10'000);
}

}  // namespace
}  // namespace ballast::server
