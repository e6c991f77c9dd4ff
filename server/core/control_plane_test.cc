// SPDX-License-Identifier: Apache-2.0
// Leases, epochs, attempts and results, on a store in memory and a clock that tests move.
#include "server/core/control_plane.h"

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/base_model_catalog.h"
#include "server/core/dataset_catalog.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"
#include "server/core/vector_catalog.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::ballast::server::testing::kBaseDigest;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class ControlPlaneTest : public CoreFixture {
 protected:
  // States that the job's events tell of, in order.
  std::vector<FineTuningJob::State> States(const std::string& name) {
    std::vector<FineTuningJob::State> states;
    int64_t sequence = 0;
    for (const v1::JobEvent& event : Events(name)) {
      EXPECT_EQ(event.sequence(), ++sequence);
      if (event.has_state_changed()) states.push_back(event.state_changed().state());
    }
    return states;
  }
};

TEST_F(ControlPlaneTest, HandsOutTheOldestJobWithEverythingItNeeds) {
  const std::string first = CreateJob();
  now_ += absl::Seconds(1);
  const std::string second = CreateJob();
  const SynchronizeResponse response = Idle("w1");
  ASSERT_TRUE(response.has_work());
  const auto& work = response.work();
  EXPECT_EQ(work.lease().resource(), first);
  EXPECT_EQ(work.lease().epoch(), 1);
  EXPECT_EQ(work.base_model().digest(), kBaseDigest);
  EXPECT_EQ(work.base_model().files_size(), 2);
  EXPECT_FALSE(work.fine_tune().training_dataset().blob().empty());
  EXPECT_EQ(work.fine_tune().training_dataset().rows_accepted(), 100);
  EXPECT_EQ(work.fine_tune().vector().blob(), "vectors/vec-1/attempts/1/sealed");
  EXPECT_EQ(work.fine_tune().protection_handle().size(), 32u);
  EXPECT_TRUE(work.fine_tune().vector_always());
  EXPECT_EQ(work.fine_tune().job().state(), FineTuningJob::RUNNING);
  EXPECT_EQ(Job(first).attempt(), 1);
  EXPECT_EQ(Job(second).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(Job(second).queue_position(), 0);

  EXPECT_EQ(Idle("w2").work().lease().resource(), second);
  EXPECT_TRUE(Idle("w3").has_idle());
}

TEST_F(ControlPlaneTest, QueuePositionsCountOneTenantsJobs) {
  CreateJob("acme");
  now_ += absl::Seconds(1);
  CreateJob("other");
  now_ += absl::Seconds(1);
  EXPECT_EQ(Job(CreateJob("acme")).queue_position(), 1);
}

TEST_F(ControlPlaneTest, ADrainingWorkerGetsNothing) {
  CreateJob();
  SynchronizeRequest request = Request("w1");
  request.mutable_idle();
  request.set_draining(true);
  EXPECT_TRUE(Sync(request).has_idle());
}

TEST_F(ControlPlaneTest, ALostAnswerIsGivenAgain) {
  const std::string name = CreateJob();
  const auto first = Idle("w1");
  const auto again = Idle("w1");
  EXPECT_EQ(again.work().lease().epoch(), first.work().lease().epoch());
  EXPECT_EQ(again.work().lease().resource(), name);
  EXPECT_EQ(Job(name).attempt(), 1);
}

TEST_F(ControlPlaneTest, AWorkerThatForgotItsWorkLosesIt) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  Busy("w1", lease, 1);
  const auto next = Idle("w1");
  EXPECT_EQ(next.work().lease().resource(), name);
  EXPECT_EQ(next.work().lease().epoch(), 2);
  EXPECT_EQ(Job(name).attempt(), 2);
}

TEST_F(ControlPlaneTest, HeartbeatsRenewAndSilenceEndsALease) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  for (int i = 0; i < 5; ++i) {
    now_ += absl::Seconds(20);
    EXPECT_TRUE(Busy("w1", lease, i).has_proceed());
  }
  now_ += absl::Seconds(31);
  ASSERT_OK(plane_->Enter(now_));
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(plane_->LeasesLost(), 1);
  EXPECT_TRUE(Busy("w1", lease, 9).stop().lease_lost());
  EXPECT_THAT(States(name),
              ElementsAre(FineTuningJob::QUEUED, FineTuningJob::RUNNING, FineTuningJob::QUEUED));
  EXPECT_EQ(Idle("w2").work().lease().epoch(), 2);
}

TEST_F(ControlPlaneTest, AttemptsAreCapped) {
  const std::string name = CreateJob();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_EQ(Idle(absl::StrCat("w", attempt)).work().lease().epoch(), attempt);
    now_ += absl::Seconds(31);
    ASSERT_OK(plane_->Enter(now_));
  }
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.state(), FineTuningJob::FAILED);
  EXPECT_EQ(job.error().kind(), v1::JobError::PLATFORM);
  EXPECT_EQ(job.error().reason(), "WORKERS_LOST");
  EXPECT_TRUE(job.has_end_time());
  EXPECT_THAT(Garbage(), ::testing::Contains(HasSubstr("jobs/acme/")));
}

TEST_F(ControlPlaneTest, HandingBackCountsNoAttempt) {
  const std::string name = CreateJob();
  for (int i = 1; i <= 5; ++i) {
    const auto lease = Idle("w1").work().lease();
    EXPECT_EQ(lease.epoch(), i);
    SynchronizeRequest request = Finished("w1", lease);
    request.mutable_finished()->mutable_handed_back();
    request.set_draining(true);
    EXPECT_TRUE(Sync(request).has_idle());
    EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  }
}

TEST_F(ControlPlaneTest, UserErrorsAreFinalAndPlatformErrorsAreTriedAgain) {
  const std::string name = CreateJob();
  auto lease = Idle("w1").work().lease();
  SynchronizeRequest request = Finished("w1", lease);
  request.mutable_finished()->mutable_error()->set_kind(v1::JobError::PLATFORM);
  request.mutable_finished()->mutable_error()->set_reason("OUT_OF_MEMORY");
  request.mutable_finished()->mutable_error()->set_message("secret path /x");
  request.set_draining(true);
  Sync(request);
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  for (const v1::JobEvent& event : Events(name)) {
    EXPECT_THAT(event.ShortDebugString(), ::testing::Not(HasSubstr("secret path")));
  }
  now_ += absl::Seconds(5);

  lease = Idle("w1").work().lease();
  request = Finished("w1", lease);
  request.mutable_finished()->mutable_error()->set_kind(v1::JobError::USER);
  request.mutable_finished()->mutable_error()->set_reason("LOSS_NOT_FINITE");
  request.mutable_finished()->mutable_error()->set_message("lower the learning rate");
  Sync(request);
  EXPECT_EQ(Job(name).state(), FineTuningJob::FAILED);
  EXPECT_EQ(Job(name).error().reason(), "LOSS_NOT_FINITE");
  EXPECT_EQ(Job(name).error().message(), "lower the learning rate");
}

TEST_F(ControlPlaneTest, AResultIsFixedOnceAndARepeatIsAnsweredAlike) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  const SynchronizeRequest request = FinishedDelta("w1", lease);
  EXPECT_TRUE(Sync(request).has_idle());
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(job.delta(), name + "/delta");
  EXPECT_EQ(job.manifest_digest(), request.finished().delta().manifest_digest());
  EXPECT_EQ(job.progress().step(), 7);
  const size_t events = Events(name).size();
  EXPECT_TRUE(Sync(request).has_idle());
  EXPECT_EQ(Events(name).size(), events);
  // The same report from somebody else is stale.
  EXPECT_THAT(plane_->Synchronize(now_, FinishedDelta("w2", lease)),
              StatusIs(kPrecondition, "LEASE_LOST"));
}

TEST_F(ControlPlaneTest, AStaleEpochChangesNothing) {
  const std::string name = CreateJob();
  const auto stale = Idle("w1").work().lease();
  now_ += absl::Seconds(31);
  ASSERT_OK(plane_->Enter(now_));
  const auto fresh = Idle("w2").work().lease();
  const FineTuningJob before = Job(name);
  const size_t events = Events(name).size();

  EXPECT_THAT(plane_->Synchronize(now_, FinishedDelta("w1", stale)),
              StatusIs(kPrecondition, "LEASE_LOST"));
  SynchronizeRequest busy = Request("w1");
  *busy.mutable_busy()->mutable_lease() = stale;
  busy.mutable_busy()->add_evaluations()->set_step(5);
  EXPECT_TRUE(Sync(busy).stop().lease_lost());
  worker::v1::WriteBlobRequest write;
  *write.mutable_lease() = stale;
  write.set_worker_id("w1");
  write.set_checkpoint_step(3);
  EXPECT_THAT(plane_->BlobToWrite(now_, write), StatusIs(kPrecondition, "LEASE_LOST"));
  bool ran = false;
  EXPECT_THAT(plane_->CommitBlob(now_, write, "b",
                                 [&] {
                                   ran = true;
                                   return absl::OkStatus();
                                 }),
              StatusIs(kPrecondition, "LEASE_LOST"));
  EXPECT_FALSE(ran);
  EXPECT_THAT(plane_->CheckReadable(now_, "w1", stale, "x"), StatusIs(kPrecondition, "LEASE_LOST"));
  // The right epoch from the wrong worker is no better.
  *write.mutable_lease() = fresh;
  EXPECT_THAT(plane_->BlobToWrite(now_, write), StatusIs(kPrecondition, "LEASE_LOST"));

  EXPECT_EQ(Job(name).SerializeAsString(), before.SerializeAsString());
  EXPECT_EQ(Events(name).size(), events);
  EXPECT_TRUE(Sync(FinishedDelta("w2", fresh)).has_idle());
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
}

TEST_F(ControlPlaneTest, ALeaseOutlivesACommitThatTakesLongAndHoldsUpNobody) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  worker::v1::WriteBlobRequest write;
  *write.mutable_lease() = lease;
  write.set_worker_id("w1");
  write.set_checkpoint_step(3);
  std::thread finishing;
  std::atomic<bool> begun = false, ended = false;
  ASSERT_OK(plane_->CommitBlob(now_, write, "blob", [&] {
    // Others are served meanwhile, and time passes.
    now_ += absl::Hours(1);
    EXPECT_OK(plane_->Enter(now_));
    EXPECT_TRUE(Idle("w2").has_idle());
    EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING);
    // What would end the lease waits for the commit.
    finishing = std::thread([&, now = now_] {
      begun = true;
      EXPECT_OK(plane_->Synchronize(now, FinishedDelta("w1", lease)));
      ended = true;
    });
    while (!begun) std::this_thread::yield();
    for (int i = 0; i < 200; ++i) EXPECT_OK(plane_->Enter(now_));
    EXPECT_FALSE(ended);
    return absl::OkStatus();
  }));
  finishing.join();
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
}

TEST_F(ControlPlaneTest, CancelsOfQueuedAndRunningJobs) {
  const std::string queued = CreateJob();
  EXPECT_EQ(Cancel(queued).state(), FineTuningJob::CANCELLED);
  EXPECT_EQ(Cancel(queued).state(), FineTuningJob::CANCELLED);
  EXPECT_TRUE(Idle("w1").has_idle());

  const std::string running = CreateJob();
  const auto lease = Idle("w1").work().lease();
  EXPECT_EQ(Cancel(running).state(), FineTuningJob::CANCELLING);
  EXPECT_EQ(Cancel(running).state(), FineTuningJob::CANCELLING);
  const auto stop = Busy("w1", lease, 1);
  ASSERT_TRUE(stop.has_stop());
  EXPECT_FALSE(stop.stop().lease_lost());
  SynchronizeRequest request = Finished("w1", lease);
  request.mutable_finished()->mutable_cancelled();
  Sync(request);
  EXPECT_EQ(Job(running).state(), FineTuningJob::CANCELLED);
  EXPECT_THAT(States(running), ElementsAre(FineTuningJob::QUEUED, FineTuningJob::RUNNING,
                                           FineTuningJob::CANCELLING, FineTuningJob::CANCELLED));
}

TEST_F(ControlPlaneTest, ACancelThatComesTooLateDelivers) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  Cancel(name);
  Sync(FinishedDelta("w1", lease));
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
  EXPECT_THAT(jobs_->Cancel(now_, "acme", Parse(name)), StatusIs(kPrecondition, "JOB_ENDED"));
}

TEST_F(ControlPlaneTest, EvaluationsAreToldOnceOverAllAttempts) {
  const std::string name = CreateJob();
  auto lease = Idle("w1").work().lease();
  const auto report = [&](const std::string& worker, int64_t until) {
    SynchronizeRequest request = Request(worker);
    *request.mutable_busy()->mutable_lease() = lease;
    request.mutable_busy()->set_step(until);
    request.mutable_busy()->set_total_steps(10);
    for (int64_t step = 0; step <= until; step += 2) {
      auto* evaluation = request.mutable_busy()->add_evaluations();
      evaluation->set_step(step);
      evaluation->set_training_loss(static_cast<double>(step));
    }
    Sync(request);
  };
  report("w1", 2);
  report("w1", 4);
  report("w1", 4);
  now_ += absl::Seconds(31);
  ASSERT_OK(plane_->Enter(now_));
  lease = Idle("w2").work().lease();
  report("w2", 2);
  report("w2", 6);
  std::vector<int64_t> steps;
  for (const v1::JobEvent& event : Events(name)) {
    if (event.has_evaluation()) steps.push_back(event.evaluation().step());
  }
  EXPECT_THAT(steps, ElementsAre(0, 2, 4, 6));
  EXPECT_EQ(Job(name).progress().evaluations_size(), 4);
  EXPECT_EQ(plane_->LiveProgress(name)->step(), 6);
  EXPECT_EQ(plane_->LiveProgress(name)->total_steps(), 10);
}

TEST_F(ControlPlaneTest, WorkWhoseHandOutGotNoAnswerIsGivenAgain) {
  const std::string name = CreateJob();
  store_.LoseNextAnswerForTest();
  EXPECT_THAT(plane_->Synchronize(now_, Request("w1")),
              StatusIs(absl::StatusCode::kUnavailable, "COMMIT_UNKNOWN"));
  EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING);
  const auto lease = Idle("w1").work().lease();
  EXPECT_EQ(lease.resource(), name);
  EXPECT_EQ(lease.epoch(), 1);
  // And one whose worker is gone is not held for good.
  const std::string other = CreateJob();
  store_.LoseNextAnswerForTest();
  EXPECT_FALSE(plane_->Synchronize(now_, Request("w2")).ok());
  EXPECT_OK(plane_->Enter(now_));
  now_ += absl::Seconds(31);
  EXPECT_OK(plane_->Enter(now_));
  EXPECT_EQ(Job(other).state(), FineTuningJob::QUEUED);
}

TEST_F(ControlPlaneTest, AResultWhoseAnswerWasLostIsKeptOnce) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  store_.LoseNextAnswerForTest();
  EXPECT_FALSE(plane_->Synchronize(now_, FinishedDelta("w1", lease)).ok());
  EXPECT_TRUE(Sync(FinishedDelta("w1", lease)).has_idle());
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
  now_ += absl::Seconds(31);
  EXPECT_OK(plane_->Enter(now_));
  EXPECT_EQ(plane_->LeasesLost(), 0);
}

TEST_F(ControlPlaneTest, TheNextAttemptResumesFromTheCheckpoint) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  for (const int64_t step : {3, 6}) WriteCheckpoint("w1", lease, step);
  EXPECT_THAT(Garbage(), ElementsAre(HasSubstr("/attempts/1/checkpoints/3")));
  now_ += absl::Seconds(31);
  const auto work = Idle("w2").work();
  EXPECT_THAT(work.fine_tune().checkpoint_blob(), HasSubstr("/attempts/1/checkpoints/6"));
  EXPECT_OK(plane_->CheckReadable(now_, "w2", work.lease(), work.fine_tune().checkpoint_blob()));
}

TEST_F(ControlPlaneTest, OnlyBlobsOfTheWorkAreRead) {
  CreateJob("acme");
  const auto work = Idle("w1").work();
  EXPECT_OK(plane_->CheckReadable(now_, "w1", work.lease(), work.base_model().files(0).blob()));
  EXPECT_OK(
      plane_->CheckReadable(now_, "w1", work.lease(), work.fine_tune().training_dataset().blob()));
  EXPECT_OK(plane_->CheckReadable(now_, "w1", work.lease(), work.fine_tune().vector().blob()));
  for (const char* blob : {"", "datasets/other/ds-other", "vectors/vec-1/rows/prohibited"}) {
    EXPECT_THAT(plane_->CheckReadable(now_, "w1", work.lease(), blob),
                StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
  }
}

TEST_F(ControlPlaneTest, OnlyBlobsOfTheAttemptAreWritten) {
  CreateJob();
  const auto lease = Idle("w1").work().lease();
  worker::v1::WriteBlobRequest write;
  *write.mutable_lease() = lease;
  write.set_worker_id("w1");
  write.set_delta_path("adapter/adapter_model.safetensors");
  ASSERT_OK_AND_ASSIGN(const std::string blob, plane_->BlobToWrite(now_, write));
  EXPECT_THAT(blob, HasSubstr("/attempts/1/delta/adapter/adapter_model.safetensors"));
  for (const char* path :
       {"", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/b/c/d/e", "a b"}) {
    write.set_delta_path(path);
    EXPECT_THAT(plane_->BlobToWrite(now_, write),
                StatusIs(absl::StatusCode::kInvalidArgument, "BLOB_KIND_INVALID"))
        << path;
  }
  write.set_sealed_vector(true);
  EXPECT_THAT(plane_->BlobToWrite(now_, write),
              StatusIs(absl::StatusCode::kInvalidArgument, "BLOB_KIND_INVALID"));
}

TEST_F(ControlPlaneTest, ResultsThatDoNotFitAreRefused) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  const auto refused = [&](const SynchronizeRequest& request) {
    EXPECT_THAT(plane_->Synchronize(now_, request),
                StatusIs(absl::StatusCode::kInvalidArgument, "RESULT_INVALID"))
        << request.DebugString();
  };
  refused(Finished("w1", lease));
  SynchronizeRequest request = Finished("w1", lease);
  request.mutable_finished()->mutable_vector()->set_ciphertext_digest(DigestOf("x"));
  refused(request);
  request = FinishedDelta("w1", lease);
  request.mutable_finished()->mutable_delta()->set_manifest_digest(DigestOf("other"));
  refused(request);
  request = FinishedDelta("w1", lease);
  request.mutable_finished()->mutable_delta()->mutable_files(0)->set_path("../x");
  refused(request);
  request = FinishedDelta("w1", lease);
  *request.mutable_finished()->mutable_delta()->add_files() = request.finished().delta().files(0);
  refused(request);
  EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING);
}

TEST_F(ControlPlaneTest, ANewServerFindsLeasesAndGivesThemAFullTerm) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  now_ += absl::Seconds(29);
  Restart();
  now_ += absl::Seconds(29);
  EXPECT_TRUE(Busy("w1", lease, 3).has_proceed());
  now_ += absl::Seconds(29);
  Restart();
  EXPECT_TRUE(Sync(FinishedDelta("w1", lease)).has_idle());
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
  Restart();
  EXPECT_TRUE(Sync(FinishedDelta("w1", lease)).has_idle());
}

TEST_F(ControlPlaneTest, AFailedCommitChangesNothingAndIsTriedAgain) {
  const std::string name = CreateJob();
  const auto full = MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL", "full");
  store_.FailNextCommitForTest(full);
  SynchronizeRequest idle = Request("w1");
  idle.mutable_idle();
  EXPECT_THAT(plane_->Synchronize(now_, idle),
              StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  const auto lease = Idle("w1").work().lease();
  store_.FailNextCommitForTest(full);
  EXPECT_THAT(plane_->Synchronize(now_, FinishedDelta("w1", lease)),
              StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING);
  Sync(FinishedDelta("w1", lease));
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
}

TEST_F(ControlPlaneTest, SpeedOfJobsBecomesAnEstimate) {
  EXPECT_FALSE(Job(CreateJob()).estimate().has_running_time());
  const auto lease = Idle("w1").work().lease();
  now_ += absl::Seconds(20);
  Sync(FinishedDelta("w1", lease));  // 7000 tokens in 20 s
  const v1::Estimate estimate = Job(CreateJob()).estimate();
  EXPECT_EQ(estimate.total_tokens(), 30'000);
  EXPECT_EQ(estimate.running_time().seconds(), 86);
}

TEST_F(ControlPlaneTest, SpeedIsLearntFromWhatThisLeaseHasSeen) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  const auto busy = [&](int64_t step) {
    SynchronizeRequest request = Request("w1");
    *request.mutable_busy()->mutable_lease() = lease;
    request.mutable_busy()->set_step(step);
    request.mutable_busy()->set_total_steps(7);
    request.mutable_busy()->set_trained_tokens(1000 * step);
    Sync(request);
  };
  now_ += absl::Seconds(20);
  busy(5);
  Restart();
  now_ += absl::Seconds(10);
  Busy("w1", lease, 0);  // no total: nothing to measure from yet
  now_ += absl::Seconds(10);
  busy(5);
  EXPECT_FALSE(plane_->LiveProgress(name)->has_time_left());
  now_ += absl::Seconds(10);
  busy(6);
  EXPECT_EQ(plane_->LiveProgress(name)->time_left().seconds(), 10);
  now_ += absl::Seconds(10);
  Sync(FinishedDelta("w1", lease));  // 2000 tokens in the 20 s since step 5
  EXPECT_EQ(Job(CreateJob()).estimate().running_time().seconds(), 300);
}

TEST_F(ControlPlaneTest, NoSpeedIsLearntFromALeaseThatOnlyItsEndIsKnownOf) {
  CreateJob();
  const auto lease = Idle("w1").work().lease();
  Restart();
  now_ += absl::Seconds(1);
  Sync(FinishedDelta("w1", lease));
  EXPECT_FALSE(Job(CreateJob()).estimate().has_running_time());
}

TEST_F(ControlPlaneTest, ALeaseIsRenewedWhileAResultsFilesAreRead) {
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  now_ += absl::Seconds(29);
  ASSERT_OK_AND_ASSIGN(const auto files, plane_->ResultBlobs(now_, FinishedDelta("w1", lease)));
  EXPECT_EQ(files.size(), 2u);
  ASSERT_OK(plane_->Renew(now_, "w1", lease));
  now_ += absl::Seconds(29);
  ASSERT_OK(plane_->Enter(now_));
  EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING);
}

TEST_F(ControlPlaneTest, AWorkersTextIsCutBetweenCharacters) {
  const std::string name = CreateJob();
  std::string long_text = "x";
  for (int i = 0; i < 600; ++i) long_text += "\xc3\xa9";
  SynchronizeRequest request = Request("w1");
  request.mutable_idle();
  request.set_device(long_text);
  const auto lease = Sync(request).work().lease();
  ASSERT_EQ(plane_->ListWorkers(now_).size(), 1u);
  EXPECT_EQ(plane_->ListWorkers(now_)[0].device(), long_text.substr(0, 199));
  request = Finished("w1", lease);
  request.mutable_finished()->mutable_error()->set_kind(v1::JobError::USER);
  request.mutable_finished()->mutable_error()->set_reason("LOSS_NOT_FINITE");
  request.mutable_finished()->mutable_error()->set_message(long_text);
  Sync(request);
  EXPECT_EQ(Job(name).error().message(), long_text.substr(0, 999));
}

TEST_F(ControlPlaneTest, KnowsWorkersForAnHour) {
  Idle("w1");
  now_ += absl::Minutes(50);
  Idle("w2");
  EXPECT_EQ(plane_->ListWorkers(now_).size(), 2u);
  now_ += absl::Minutes(20);
  ASSERT_EQ(plane_->ListWorkers(now_).size(), 1u);
  EXPECT_EQ(plane_->ListWorkers(now_)[0].name(), "workers/w2");
  SynchronizeRequest request = Request("no/slash");
  request.mutable_idle();
  EXPECT_THAT(plane_->Synchronize(now_, request),
              StatusIs(absl::StatusCode::kInvalidArgument, "WORKER_ID_INVALID"));
}

}  // namespace
}  // namespace ballast::server
