// SPDX-License-Identifier: Apache-2.0
// The state SCREENING: an attempt on a base that has a screen, until its worker has told what was
// found.
#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/records.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::testing::ElementsAre;
using v1::FineTuningJob;
using v1::ScreeningReport;

class ScreeningTest : public CoreFixture {
 protected:
  void SetUp() override {
    CoreFixture::SetUp();
    ChangeBase([](BaseModelRecord& base) {
      base.mutable_screen()->set_digest("sha256:screen");
      base.mutable_screen()->set_action(admin::v1::SCREEN_ACTION_DROP);
      base.set_screen_blobs("screens/base/1");
    });
    name_ = CreateJob();
    lease_ = Idle("w-1").work().lease();
  }
  worker::v1::SynchronizeResponse Report(ScreeningReport::Action action) {
    worker::v1::SynchronizeRequest request = Request("w-1");
    *request.mutable_busy()->mutable_lease() = lease_;
    Fill(action, *request.mutable_busy());
    return Sync(request);
  }
  static void Fill(ScreeningReport::Action action, worker::v1::SynchronizeRequest::Busy& busy) {
    busy.mutable_screening()->set_rows(100);
    busy.mutable_screening()->set_flagged_rows(3);
    busy.mutable_screening()->set_action(action);
  }
  std::vector<FineTuningJob::State> Path() {
    std::vector<FineTuningJob::State> path;
    for (const v1::JobEvent& event : Events(name_)) {
      if (event.has_state_changed()) path.push_back(event.state_changed().state());
    }
    return path;
  }
  FineTuningJob::State State() { return Job(name_).state(); }

  std::string name_;
  worker::v1::Lease lease_;
};

TEST_F(ScreeningTest, RunsOnceTheRowsWereLookedAt) {
  EXPECT_EQ(State(), FineTuningJob::SCREENING);
  EXPECT_EQ(Job(name_).attempt(), 1);
  EXPECT_TRUE(Job(name_).has_start_time());
  Busy("w-1", lease_, 0);
  EXPECT_EQ(State(), FineTuningJob::SCREENING) << "nothing was said yet";
  Report(ScreeningReport::LEFT_OUT);
  EXPECT_EQ(State(), FineTuningJob::RUNNING);
  EXPECT_EQ(Job(name_).screening().flagged_rows(), 3);
  Report(ScreeningReport::LEFT_OUT);
  EXPECT_THAT(Path(),
              ElementsAre(FineTuningJob::QUEUED, FineTuningJob::SCREENING, FineTuningJob::RUNNING));
}

TEST_F(ScreeningTest, ARefusedJobNeverRuns) {
  Report(ScreeningReport::REFUSED);
  EXPECT_EQ(State(), FineTuningJob::SCREENING);
  worker::v1::SynchronizeRequest refused = Finished("w-1", lease_);
  refused.mutable_finished()->mutable_error()->set_kind(v1::JobError::REFUSED);
  refused.mutable_finished()->mutable_error()->set_reason("ROWS_FLAGGED");
  Fill(ScreeningReport::REFUSED, *refused.mutable_finished()->mutable_final_state());
  Sync(refused);
  EXPECT_EQ(State(), FineTuningJob::FAILED);
  EXPECT_EQ(Job(name_).error().reason(), "ROWS_FLAGGED");
  EXPECT_THAT(Path(),
              ElementsAre(FineTuningJob::QUEUED, FineTuningJob::SCREENING, FineTuningJob::FAILED));
}

TEST_F(ScreeningTest, ALostWorkersJobIsScreenedAgain) {
  Report(ScreeningReport::LEFT_OUT);
  worker::v1::SynchronizeRequest request = Request("w-1");
  *request.mutable_busy()->mutable_lease() = lease_;
  Fill(ScreeningReport::LEFT_OUT, *request.mutable_busy());
  request.mutable_busy()->set_total_steps(20);
  request.mutable_busy()->set_step(4);
  request.mutable_busy()->add_evaluations()->set_step(4);
  Sync(request);
  now_ += absl::Minutes(1);
  ASSERT_OK(plane_->Enter(now_));
  ASSERT_EQ(State(), FineTuningJob::QUEUED);
  lease_ = Idle("w-1").work().lease();
  EXPECT_EQ(State(), FineTuningJob::SCREENING);
  Report(ScreeningReport::LEFT_OUT);
  EXPECT_EQ(State(), FineTuningJob::RUNNING) << "the same was found as before";
  EXPECT_EQ(Job(name_).progress().total_steps(), 20) << "which the screening does not know";
}

TEST_F(ScreeningTest, ALeaseEndsWhileItScreens) {
  now_ += absl::Minutes(1);
  ASSERT_OK(plane_->Enter(now_));
  EXPECT_EQ(State(), FineTuningJob::QUEUED);
  Report(ScreeningReport::LEFT_OUT);
  EXPECT_EQ(State(), FineTuningJob::QUEUED) << "the lease is stale";
}

TEST_F(ScreeningTest, ARestartedServerKnowsTheLease) {
  Restart();
  Report(ScreeningReport::REPORTED);
  EXPECT_EQ(State(), FineTuningJob::RUNNING);
}

TEST_F(ScreeningTest, ItCanBePausedAndCancelled) {
  EXPECT_OK(jobs_->Resume(now_, "acme", Parse(name_)));
  EXPECT_EQ(State(), FineTuningJob::SCREENING) << "it goes on already";
  EXPECT_OK(jobs_->Pause(now_, "acme", Parse(name_)));
  EXPECT_EQ(State(), FineTuningJob::PAUSING);
  Report(ScreeningReport::LEFT_OUT);
  EXPECT_EQ(State(), FineTuningJob::PAUSING) << "what was found does not undo the pause";
  Cancel(name_);
  EXPECT_EQ(State(), FineTuningJob::CANCELLING);
}

TEST_F(ScreeningTest, ADataSetStaysWhileItIsScreened) {
  const TenantName dataset = *ParseDatasetName(Job(name_).training_dataset(), "name");
  EXPECT_THAT(datasets_->Delete("acme", dataset, ""),
              ::ballast::testing::StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ScreeningTest, AQuickWorkersResultTellsWhatWasFound) {
  worker::v1::SynchronizeRequest finished = FinishedDelta("w-1", lease_);
  Fill(ScreeningReport::LEFT_OUT, *finished.mutable_finished()->mutable_final_state());
  Sync(finished);
  EXPECT_EQ(State(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(Job(name_).screening().rows(), 100);
}

}  // namespace
}  // namespace ballast::server
