// SPDX-License-Identifier: Apache-2.0
// A job that its owner pauses and lets go on, whatever its worker does meanwhile.
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/control_plane.h"
#include "server/core/job_catalog.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class JobPauseTest : public CoreFixture {
 protected:
  absl::StatusOr<FineTuningJob> Pause(const std::string& name) {
    return jobs_->Pause(now_, "acme", Parse(name));
  }
  absl::StatusOr<FineTuningJob> Resume(const std::string& name) {
    return jobs_->Resume(now_, "acme", Parse(name));
  }
  FineTuningJob::State State(const std::string& name) { return Job(name).state(); }

  std::vector<std::string> Messages(const std::string& name) {
    std::vector<std::string> messages;
    for (const v1::JobEvent& event : Events(name)) {
      if (!event.message().empty()) messages.push_back(event.message());
    }
    return messages;
  }

  // The worker says that it has stopped, as told.
  void ReportPaused(const std::string& worker, const worker::v1::Lease& lease,
                    bool checkpoint_failed = false) {
    SynchronizeRequest request = Finished(worker, lease);
    request.mutable_finished()->mutable_paused()->set_checkpoint_failed(checkpoint_failed);
    request.set_draining(true);
    Sync(request);
  }

  // A job that w1 runs, asked to pause.
  void StartAndPause() {
    name_ = CreateJob();
    lease_ = Idle("w1").work().lease();
    ASSERT_OK(Pause(name_));
    ASSERT_EQ(State(name_), FineTuningJob::PAUSING);
  }

  std::string name_;
  worker::v1::Lease lease_;
};

TEST_F(JobPauseTest, AQueuedJobIsPausedAtOnceAndGetsAnotherPlace) {
  const std::string first = CreateJob();
  now_ += absl::Seconds(1);
  const std::string second = CreateJob();
  now_ += absl::Seconds(1);
  CreateJob();
  ASSERT_OK(Pause(first));
  ASSERT_OK(Pause(first));
  EXPECT_EQ(State(first), FineTuningJob::PAUSED);
  EXPECT_EQ(Job(second).queue_position(), 0);
  ASSERT_OK(Resume(first));
  ASSERT_OK(Resume(first));
  EXPECT_EQ(State(first), FineTuningJob::QUEUED);
  CreateJob();
  EXPECT_EQ(Job(second).queue_position(), 0);
  EXPECT_EQ(Idle("w1").work().lease().resource(), second);
  EXPECT_THAT(Messages(first), IsEmpty());
}

TEST_F(JobPauseTest, NobodyGetsAPausedJob) {
  const std::string name = CreateJob();
  ASSERT_OK(Pause(name));
  EXPECT_TRUE(Idle("w1").has_idle());
  now_ += absl::Hours(1000);
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_EQ(State(name), FineTuningJob::PAUSED);
}

TEST_F(JobPauseTest, ARunningJobStopsWithACheckpointAndGoesOnFromIt) {
  StartAndPause();
  const auto answer = Busy("w1", lease_, 4);
  ASSERT_TRUE(answer.has_stop());
  EXPECT_FALSE(answer.stop().lease_lost());
  EXPECT_TRUE(answer.stop().pause());
  WriteCheckpoint("w1", lease_, 4);
  ReportPaused("w1", lease_);
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
  EXPECT_THAT(Messages(name_), IsEmpty());
  EXPECT_TRUE(Idle("w1").has_idle());

  ASSERT_OK(Resume(name_));
  const auto work = Idle("w2").work();
  EXPECT_EQ(work.lease().epoch(), 2);
  EXPECT_THAT(work.fine_tune().checkpoint_blob(), HasSubstr("/attempts/1/checkpoints/4"));
  Sync(FinishedDelta("w2", work.lease()));
  EXPECT_EQ(State(name_), FineTuningJob::SUCCEEDED);
}

TEST_F(JobPauseTest, PausingCountsNoAttempt) {
  const std::string name = CreateJob();
  for (int i = 1; i <= 5; ++i) {
    const auto lease = Idle("w1").work().lease();
    EXPECT_EQ(lease.epoch(), i);
    ASSERT_OK(Pause(name));
    ReportPaused("w1", lease);
    ASSERT_OK(Resume(name));
  }
  EXPECT_EQ(State(name), FineTuningJob::QUEUED);
}

TEST_F(JobPauseTest, ACheckpointThatFailedIsSaid) {
  StartAndPause();
  ReportPaused("w1", lease_, /*checkpoint_failed=*/true);
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
  EXPECT_THAT(Messages(name_), ElementsAre(HasSubstr("checkpoint could not be written")));
}

TEST_F(JobPauseTest, ALostWorkerLeavesTheJobPaused) {
  StartAndPause();
  now_ += absl::Seconds(31);
  ASSERT_OK(plane_->Enter(now_));
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
  EXPECT_THAT(Messages(name_), ElementsAre(HasSubstr("the worker was lost; the job is paused")));
  EXPECT_TRUE(Busy("w1", lease_, 5).stop().lease_lost());
  EXPECT_TRUE(Idle("w2").has_idle());
}

TEST_F(JobPauseTest, ADrainingWorkerLeavesTheJobPaused) {
  StartAndPause();
  SynchronizeRequest request = Finished("w1", lease_);
  request.mutable_finished()->mutable_handed_back();
  request.set_draining(true);
  Sync(request);
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
}

TEST_F(JobPauseTest, ARestartForgetsNoPause) {
  StartAndPause();
  Restart();
  EXPECT_TRUE(Busy("w1", lease_, 5).stop().pause());
  ReportPaused("w1", lease_);
  Restart();
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
  ASSERT_OK(Resume(name_));
  EXPECT_TRUE(Idle("w1").has_work());
}

TEST_F(JobPauseTest, APauseThatComesTooLateDelivers) {
  StartAndPause();
  Sync(FinishedDelta("w1", lease_));
  EXPECT_EQ(State(name_), FineTuningJob::SUCCEEDED);
}

TEST_F(JobPauseTest, ACancelEndsWhatWasToPause) {
  StartAndPause();
  Cancel(name_);
  EXPECT_FALSE(Busy("w1", lease_, 5).stop().pause());
  // The worker was told to pause before.
  ReportPaused("w1", lease_);
  EXPECT_EQ(State(name_), FineTuningJob::CANCELLED);
  EXPECT_THAT(Garbage(), Contains(HasSubstr("jobs/acme/")));
}

TEST_F(JobPauseTest, ACancelEndsAPausedJob) {
  StartAndPause();
  WriteCheckpoint("w1", lease_, 4);
  ReportPaused("w1", lease_);
  EXPECT_EQ(Cancel(name_).state(), FineTuningJob::CANCELLED);
  EXPECT_THAT(Garbage(), Contains(HasSubstr("jobs/acme/")));
}

TEST_F(JobPauseTest, AWorkerThatStopsUnaskedHasFailed) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  ReportPaused("w1", lease);
  EXPECT_EQ(State(name), FineTuningJob::QUEUED);
  EXPECT_THAT(Messages(name), ElementsAre(HasSubstr("STOPPED_UNASKED")));
}

TEST_F(JobPauseTest, WhatCannotBePausedOrResumedSaysWhy) {
  StartAndPause();
  const auto early = Resume(name_);
  EXPECT_THAT(early, StatusIs(kPrecondition, "JOB_PAUSING"));
  EXPECT_TRUE(early.status().GetPayload(kRetryInfoUrl).has_value());
  Cancel(name_);
  EXPECT_THAT(Pause(name_), StatusIs(kPrecondition, "JOB_CANCELLING"));
  EXPECT_THAT(Resume(name_), StatusIs(kPrecondition, "JOB_CANCELLING"));
  ReportPaused("w1", lease_);
  EXPECT_THAT(Pause(name_), StatusIs(kPrecondition, "JOB_ENDED"));
  EXPECT_THAT(Resume(name_), StatusIs(kPrecondition, "JOB_ENDED"));
  const std::string dataset = Job(name_).training_dataset();
  ASSERT_OK(datasets_->Delete("acme", {"acme", dataset.substr(dataset.rfind('/') + 1)}, ""));
  EXPECT_THAT(Resume(name_), StatusIs(kPrecondition, "JOB_ENDED"));
  SetGate();
  const std::string withheld = CreateWithheldJob();
  EXPECT_THAT(Pause(withheld), StatusIs(kPrecondition, "JOB_WITHHELD"));
  EXPECT_THAT(Resume(withheld), StatusIs(kPrecondition, "JOB_WITHHELD"));
}

TEST_F(JobPauseTest, AnotherTenantsJobIsNotThere) {
  const std::string name = CreateJob();
  EXPECT_THAT(jobs_->Pause(now_, "other", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(jobs_->Resume(now_, "other", Parse(name)),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_EQ(State(name), FineTuningJob::QUEUED);
}

TEST_F(JobPauseTest, ADataSetOfAPausedJobStays) {
  const std::string name = CreateJob();
  ASSERT_OK(Pause(name));
  const std::string dataset = Job(name).training_dataset();
  const auto erase = [&] {
    const size_t slash = dataset.rfind('/');
    return datasets_->Delete("acme", {"acme", dataset.substr(slash + 1)}, "");
  };
  EXPECT_THAT(erase(), StatusIs(kPrecondition, "DATASET_IN_USE"));
  Cancel(name);
  EXPECT_OK(erase());
}

TEST_F(JobPauseTest, ARejectedVectorsCheckpointIsNotTakenUp) {
  StartAndPause();
  WriteCheckpoint("w1", lease_, 4);
  AddActiveVector("vec-2", 2);
  ASSERT_OK(certification_->Certify(now_, "vec-1", BadResult("vec-1"), false));
  // The attempt is taken back, and the pause holds.
  EXPECT_EQ(State(name_), FineTuningJob::PAUSED);
  SynchronizeRequest busy = Request("w1");
  *busy.mutable_busy()->mutable_lease() = lease_;
  EXPECT_THAT(plane_->Synchronize(now_, busy), StatusIs(kPrecondition, "LEASE_LOST"));
  ASSERT_OK(Resume(name_));
  const auto work = Idle("w1").work();
  EXPECT_EQ(work.fine_tune().vector().vector_id(), "vec-2");
  EXPECT_THAT(work.fine_tune().checkpoint_blob(), IsEmpty());
}

}  // namespace
}  // namespace ballast::server
