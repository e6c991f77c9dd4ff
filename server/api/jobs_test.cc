// SPDX-License-Identifier: Apache-2.0
// Jobs from creation to delta over gRPC, with a worker played by hand: watches, leases, fencing,
// restarts.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/testing/server_fixture.h"
#include "server/testing/watching.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using v1::FineTuningJob;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class JobsTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerFixture::SetUp();
    MakeReady();
    dataset_ = UploadRows(40);
  }

  std::string NewJob() {
    const auto job = CreateJob(dataset_);
    EXPECT_OK(job);
    return job.ok() ? job->name() : "";
  }

  worker::v1::Work Take(const std::string& worker) {
    const auto response = Idle(worker);
    EXPECT_OK(response);
    EXPECT_TRUE(response.ok() && response->has_work());
    return response.ok() ? response->work() : worker::v1::Work();
  }

  // What an idle worker's call is answered while the clock moves second by second, `most` in all.
  absl::StatusOr<worker::v1::SynchronizeResponse> IdleWhileTimePasses(
      absl::Duration most = absl::InfiniteDuration()) {
    constexpr absl::Duration kStep = absl::Seconds(1);
    absl::Duration passed;
    absl::StatusOr<worker::v1::SynchronizeResponse> answer;
    std::atomic<bool> done = false;
    std::thread worker([&] {
      answer = Idle("held");
      done = true;
    });
    while (!done) {
      if (passed < most) {
        clock_.Advance(kStep);
        passed += kStep;
      }
      server_->TickForTest();
    }
    worker.join();
    return answer;
  }

  std::string dataset_;
};

TEST_F(JobsTest, FromCreationToDelta) {
  const std::string name = NewJob();
  const worker::v1::Work work = Take("w1");
  EXPECT_EQ(GetJob(name)->state(), FineTuningJob::RUNNING);

  // Everything that the work names can be read.
  const std::string id = "w1";
  EXPECT_EQ(ReadBlob(id, work.lease(), work.fine_tune().training_dataset().blob()).value(),
            Rows(40));
  EXPECT_EQ(ReadBlob(id, work.lease(), work.fine_tune().vector().blob()).value(), "sealed bytes");
  for (const auto& file : work.base_model().files()) {
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBlob(id, work.lease(), file.blob()));
    EXPECT_EQ(DigestOf(bytes), file.digest());
  }

  ASSERT_OK(FinishDelta("w1", work.lease()));
  ASSERT_OK_AND_ASSIGN(const FineTuningJob job, GetJob(name));
  EXPECT_EQ(job.state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(job.manifest_digest(), DigestOf(kManifestBytes));

  v1::GetDeltaManifestRequest request;
  request.set_name(job.delta());
  v1::DeltaManifest manifest;
  ASSERT_TRUE(deltas_->GetDeltaManifest(ContextWith(kTenantKey).get(), request, &manifest).ok());
  EXPECT_EQ(manifest.digest(), job.manifest_digest());
  EXPECT_EQ(manifest.base_model_digest(), work.base_model().digest());
  EXPECT_EQ(manifest.training_dataset_digest(), DigestOf(Rows(40)));
  ASSERT_EQ(manifest.files_size(), 2);
  for (const auto& file : manifest.files()) {
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadDelta(job.delta(), file.path()));
    EXPECT_EQ(DigestOf(bytes), file.digest());
    EXPECT_EQ(static_cast<int64_t>(bytes.size()), file.size_bytes());
  }
}

TEST_F(JobsTest, DeltasAreReadByRange) {
  NewJob();
  const worker::v1::Work work = Take("w1");
  ASSERT_OK(FinishDelta("w1", work.lease()));
  const std::string delta = work.lease().resource() + "/delta";
  const std::string path = "adapter/adapter_model.safetensors";
  EXPECT_EQ(ReadDelta(delta, path, 4).value(), "adapter");
  EXPECT_EQ(ReadDelta(delta, path, 4, 2).value(), "ad");
  EXPECT_EQ(ReadDelta(delta, path, 4, 100).value(), "adapter");
  EXPECT_EQ(ReadDelta(delta, path, 11).value(), "");
  for (const int64_t offset : {-1, 12}) {
    EXPECT_THAT(ReadDelta(delta, path, offset),
                StatusIs(absl::StatusCode::kOutOfRange, "READ_OFFSET_INVALID"));
  }
  EXPECT_THAT(ReadDelta(delta, "../x"),
              StatusIs(absl::StatusCode::kNotFound, "DELTA_FILE_NOT_FOUND"));
  // Damage is noticed, not delivered.
  const std::string stored =
      folder_.path() + "/blobs/blobs/jobs/acme/" +
      work.fine_tune().job().name().substr(work.fine_tune().job().name().rfind('/') + 1) +
      "/attempts/1/delta/" + path;
  ASSERT_OK(WriteFileAtomically(stored, "THE adapter"));
  EXPECT_THAT(ReadDelta(delta, path), StatusIs(absl::StatusCode::kDataLoss, "BLOB_CORRUPT"));
  ASSERT_OK(WriteFileAtomically(stored, "the adapte"));
  EXPECT_THAT(ReadDelta(delta, path), StatusIs(absl::StatusCode::kDataLoss, "BLOB_CORRUPT"));
}

TEST_F(JobsTest, AFileThatIsNotListedIsNotServed) {
  NewJob();
  const worker::v1::Work work = Take("w1");
  worker::v1::WriteBlobRequest kind;
  kind.set_delta_path("stray.bin");
  ASSERT_OK(WriteBlob(kind, "w1", work.lease(), "stray"));
  ASSERT_OK(FinishDelta("w1", work.lease()));
  EXPECT_THAT(ReadDelta(work.lease().resource() + "/delta", "stray.bin"),
              StatusIs(absl::StatusCode::kNotFound, "DELTA_FILE_NOT_FOUND"));
}

TEST_F(JobsTest, AWorkersBlobIsBounded) {
  options_.max_worker_blob_bytes = 9;
  Restart();
  ASSERT_OK_AND_ASSIGN(const v1::FineTuningJob job, CreateJob(UploadRows(64)));
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  worker::v1::WriteBlobRequest kind;
  kind.set_checkpoint_step(1);
  EXPECT_OK(WriteBlob(kind, "w1", response.work().lease(), "123456789"));
  kind.set_checkpoint_step(2);
  EXPECT_THAT(WriteBlob(kind, "w1", response.work().lease(), "1234567890"),
              StatusIs(absl::StatusCode::kResourceExhausted, "BLOB_TOO_LARGE"));
}

TEST_F(JobsTest, AResultWhoseFilesAreNotStoredIsRefused) {
  const std::string name = NewJob();
  const worker::v1::Work work = Take("w1");
  EXPECT_THAT(Sync(DeltaReport("w1", work.lease())),
              StatusIs(absl::StatusCode::kInvalidArgument, "RESULT_INVALID"));
  worker::v1::WriteBlobRequest kind;
  kind.set_delta_path("adapter/adapter_model.safetensors");
  ASSERT_OK(WriteBlob(kind, "w1", work.lease(), "THE adapter"));
  kind.set_delta_path("manifest.json");
  ASSERT_OK(WriteBlob(kind, "w1", work.lease(), kManifestBytes));
  EXPECT_THAT(Sync(DeltaReport("w1", work.lease())),
              StatusIs(absl::StatusCode::kInvalidArgument, "RESULT_INVALID"));
  EXPECT_EQ(GetJob(name)->state(), FineTuningJob::RUNNING);
}

TEST_F(JobsTest, AStaleWorkerChangesNothing) {
  const std::string name = NewJob();
  const auto stale = Take("w1").lease();
  LetLeasesEnd();
  const auto fresh = Take("w2").lease();
  EXPECT_EQ(fresh.epoch(), stale.epoch() + 1);
  worker::v1::WriteBlobRequest kind;
  kind.set_delta_path("manifest.json");
  EXPECT_THAT(WriteBlob(kind, "w1", stale, "evil bytes"), StatusIs(kPrecondition, "LEASE_LOST"));
  EXPECT_THAT(Sync(DeltaReport("w1", stale)), StatusIs(kPrecondition, "LEASE_LOST"));
  EXPECT_THAT(ReadBlob("w1", stale, "x"), StatusIs(kPrecondition, "LEASE_LOST"));
  EXPECT_TRUE(Busy("w1", stale, 5)->stop().lease_lost());
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("evil bytes")));
  ASSERT_OK(FinishDelta("w2", fresh));
  EXPECT_EQ(GetJob(name)->attempt(), 2);
  EXPECT_EQ(GetJob(name)->state(), FineTuningJob::SUCCEEDED);
}

TEST_F(JobsTest, ALeaseThatEndsDuringAWriteStoresNothing) {
  NewJob();
  const auto lease = Take("w1").lease();
  const auto context = ContextWith(kWorkerKey);
  worker::v1::WriteBlobResponse response;
  const auto stream = workers_->WriteBlob(context.get(), &response);
  worker::v1::WriteBlobRequest first;
  *first.mutable_lease() = lease;
  first.set_worker_id("w1");
  first.set_delta_path("manifest.json");
  first.set_data("half of it, ");
  ASSERT_TRUE(stream->Write(first));
  LetLeasesEnd();
  worker::v1::WriteBlobRequest last;
  last.set_data("and the rest");
  last.set_finish(true);
  last.set_digest(DigestOf("half of it, and the rest"));
  stream->Write(last);
  stream->WritesDone();
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), StatusIs(kPrecondition, "LEASE_LOST"));
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("half of it, and the rest")));
}

TEST_F(JobsTest, WatchReplaysFollowsAndResumesWithoutGapOrRepeat) {
  const std::string name = NewJob();
  Watching watch(*jobs_, name, 0);
  EXPECT_EQ(watch.NextEvent().state_changed().state(), FineTuningJob::QUEUED);
  const auto lease = Take("w1").lease();
  EXPECT_EQ(watch.NextEvent().state_changed().state(), FineTuningJob::RUNNING);
  watch.Cancel();
  EXPECT_THAT(watch.Finish(), StatusIs(absl::StatusCode::kCancelled));

  worker::v1::SynchronizeRequest busy = WorkerRequest("w1");
  *busy.mutable_busy()->mutable_lease() = lease;
  for (const int64_t step : {0, 5}) {
    busy.mutable_busy()->set_step(step);
    auto* evaluation = busy.mutable_busy()->add_evaluations();
    evaluation->set_step(step);
    evaluation->set_training_loss(2.0);
    ASSERT_OK(Sync(busy));
  }
  Watching again(*jobs_, name, 2);
  EXPECT_EQ(again.NextEvent().sequence(), 3);
  const v1::JobEvent fourth = again.NextEvent();
  EXPECT_EQ(fourth.sequence(), 4);
  EXPECT_EQ(fourth.evaluation().step(), 5);
  ASSERT_OK(FinishDelta("w1", lease));
  const v1::JobEvent last = again.NextEvent();
  EXPECT_EQ(last.sequence(), 5);
  EXPECT_EQ(last.state_changed().state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(again.NextEvent().sequence(), 0);
  EXPECT_OK(again.Finish());
  // A watch of a job that has ended, from its end, ends at once.
  Watching ended(*jobs_, name, 5);
  EXPECT_EQ(ended.NextEvent().sequence(), 0);
  EXPECT_OK(ended.Finish());
}

TEST_F(JobsTest, WatchShowsProgress) {
  const std::string name = NewJob();
  const auto lease = Take("w1").lease();
  Watching watch(*jobs_, name, 0);
  ASSERT_OK(Busy("w1", lease, 1));
  clock_.Advance(absl::Seconds(2));
  v1::JobProgress progress;
  std::atomic<bool> seen = false;
  std::thread reader([&] {
    do {
      progress = watch.NextProgress();
    } while (progress.total_steps() > 0 && progress.step() < 11);
    seen = true;
  });
  // Progress is shown once a second at most, so time has to pass.
  while (!seen) {
    ASSERT_OK(Busy("w1", lease, 11));
    clock_.Advance(absl::Seconds(1));
    server_->TickForTest();
  }
  reader.join();
  EXPECT_EQ(progress.step(), 11);
  EXPECT_EQ(progress.total_steps(), 100);
  EXPECT_TRUE(progress.has_time_left());
  EXPECT_EQ(GetJob(name)->progress().step(), 11);
  watch.Cancel();
}

TEST_F(JobsTest, ManyWatchersSeeTheEnd) {
  const std::string name = NewJob();
  constexpr int kWatchers = 50;
  std::vector<std::unique_ptr<Watching>> watches;
  for (int i = 0; i < kWatchers; ++i) {
    watches.push_back(std::make_unique<Watching>(*jobs_, name, 0));
    EXPECT_EQ(watches.back()->NextEvent().sequence(), 1);
  }
  ASSERT_OK(Cancel(name));
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->NextEvent().state_changed().state(), FineTuningJob::CANCELLED);
    EXPECT_EQ(watch->NextEvent().sequence(), 0);
    EXPECT_OK(watch->Finish());
  }
}

TEST_F(JobsTest, CancelReachesTheWorker) {
  const std::string name = NewJob();
  const auto lease = Take("w1").lease();
  EXPECT_EQ(Cancel(name)->state(), FineTuningJob::CANCELLING);
  const auto answer = Busy("w1", lease, 1);
  ASSERT_TRUE(answer->has_stop());
  EXPECT_FALSE(answer->stop().lease_lost());
  worker::v1::SynchronizeRequest request = WorkerRequest("w1");
  *request.mutable_finished()->mutable_lease() = lease;
  request.mutable_finished()->mutable_cancelled();
  request.set_draining(true);
  ASSERT_OK(Sync(request));
  EXPECT_EQ(GetJob(name)->state(), FineTuningJob::CANCELLED);
}

TEST_F(JobsTest, APauseReachesTheWorkerAndEndsWatches) {
  const std::string name = NewJob();
  const auto lease = Take("w1").lease();
  Watching watch(*jobs_, name, 2);
  EXPECT_EQ(Pause(name)->state(), FineTuningJob::PAUSING);
  EXPECT_EQ(watch.NextEvent().state_changed().state(), FineTuningJob::PAUSING);
  EXPECT_TRUE(Busy("w1", lease, 1)->stop().pause());
  worker::v1::SynchronizeRequest request = WorkerRequest("w1");
  *request.mutable_finished()->mutable_lease() = lease;
  request.mutable_finished()->mutable_paused();
  request.set_draining(true);
  ASSERT_OK(Sync(request));
  const v1::JobEvent paused = watch.NextEvent();
  EXPECT_EQ(paused.state_changed().state(), FineTuningJob::PAUSED);
  EXPECT_EQ(watch.NextEvent().sequence(), 0);
  EXPECT_OK(watch.Finish());

  // A held call gets it as soon as it goes on.
  absl::StatusOr<worker::v1::SynchronizeResponse> answer;
  std::thread worker([&] { answer = Idle("w2"); });
  EXPECT_EQ(Resume(name)->state(), FineTuningJob::QUEUED);
  worker.join();
  ASSERT_OK(answer);
  ASSERT_TRUE(answer->has_work());
  Watching again(*jobs_, name, paused.sequence());
  EXPECT_EQ(again.NextEvent().state_changed().state(), FineTuningJob::QUEUED);
  EXPECT_EQ(again.NextEvent().state_changed().state(), FineTuningJob::RUNNING);
  again.Cancel();
}

TEST_F(JobsTest, AHeldCallGetsAJobOnceItHasRested) {
  const std::string name = NewJob();
  worker::v1::SynchronizeRequest request = WorkerRequest("w1");
  *request.mutable_finished()->mutable_lease() = Take("w1").lease();
  request.mutable_finished()->mutable_error()->set_kind(v1::JobError::PLATFORM);
  request.mutable_finished()->mutable_error()->set_reason("OUT_OF_MEMORY");
  request.set_draining(true);
  ASSERT_OK(Sync(request));
  // A job rests for 5 s. Held calls end after 20, which must not come first.
  const auto answer = IdleWhileTimePasses(absl::Seconds(10));
  ASSERT_OK(answer);
  EXPECT_TRUE(answer->has_work());
}

TEST_F(JobsTest, OperatorsSeeWhatProtectedAJobAndItsOwnerDoesNot) {
  const std::string name = NewJob();
  const auto protection_of =
      [&](const std::string& key) -> absl::StatusOr<admin::v1::JobProtection> {
    admin::v1::GetJobProtectionRequest request;
    request.set_name(name);
    admin::v1::JobProtection protection;
    BALLAST_RETURN_IF_ERROR(
        FromGrpcStatus(admin_->GetJobProtection(ContextWith(key).get(), request, &protection)));
    return protection;
  };
  EXPECT_TRUE(protection_of(kOperatorKey)->vector().empty());
  const auto lease = Take("w1").lease();
  EXPECT_THAT(protection_of(kOperatorKey)->vector(), HasSubstr("vectors/"));
  EXPECT_FALSE(protection_of(kOperatorKey)->has_vector_use());
  ASSERT_OK(FinishDelta("w1", lease));
  const auto protection = protection_of(kOperatorKey);
  ASSERT_OK(protection);
  EXPECT_EQ(protection->job(), name);
  EXPECT_EQ(protection->vector_use().rows(), 40);
  EXPECT_EQ(protection->vector_use().rows_under_vector(), 33);
  EXPECT_THAT(protection_of(kTenantKey),
              StatusIs(absl::StatusCode::kPermissionDenied, "OPERATOR_ONLY"));
  EXPECT_THAT(GetJob(name)->DebugString(), Not(HasSubstr("rows_under_vector")));
}

TEST_F(JobsTest, AnIdleCallIsHeldUntilThereIsWork) {
  absl::StatusOr<worker::v1::SynchronizeResponse> answer;
  std::thread worker([&] { answer = Idle("held"); });
  const std::string name = NewJob();
  worker.join();
  ASSERT_OK(answer);
  ASSERT_TRUE(answer->has_work());
  EXPECT_EQ(answer->work().lease().resource(), name);
}

TEST_F(JobsTest, AHeldCallEndsAfterAWhile) {
  const auto answer = IdleWhileTimePasses();
  ASSERT_OK(answer);
  EXPECT_TRUE(answer->has_idle());
}

TEST_F(JobsTest, ValidateOnlyKeepsNothing) {
  v1::CreateFineTuningJobRequest request;
  request.set_parent("tenants/acme");
  request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
  request.mutable_fine_tuning_job()->set_training_dataset(dataset_);
  request.set_validate_only(true);
  FineTuningJob job;
  ASSERT_TRUE(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &job).ok());
  EXPECT_EQ(job.name(), "");
  EXPECT_EQ(job.estimate().rows(), 40);
  EXPECT_EQ(job.estimate().steps(), 9);
  EXPECT_EQ(job.hyperparameters().batch_rows(), 16);
  request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_learning_rate(0);
  EXPECT_THAT(
      FromGrpcStatus(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &job)),
      StatusIs(absl::StatusCode::kInvalidArgument, "LEARNING_RATE_OUT_OF_RANGE"));
  v1::ListFineTuningJobsRequest list;
  list.set_parent("tenants/acme");
  v1::ListFineTuningJobsResponse jobs;
  ASSERT_TRUE(jobs_->ListFineTuningJobs(ContextWith(kTenantKey).get(), list, &jobs).ok());
  EXPECT_EQ(jobs.fine_tuning_jobs_size(), 0);
}

TEST_F(JobsTest, CreateIsIdempotentAlsoAfterARestart) {
  v1::CreateFineTuningJobRequest request;
  request.set_parent("tenants/acme");
  request.set_request_id("11111111-2222-3333-4444-555555555555");
  request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
  request.mutable_fine_tuning_job()->set_training_dataset(dataset_);
  (*request.mutable_fine_tuning_job()->mutable_labels())["b"] = "2";
  (*request.mutable_fine_tuning_job()->mutable_labels())["a"] = "1";
  FineTuningJob first, second;
  ASSERT_TRUE(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &first).ok());
  Restart();
  ASSERT_TRUE(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  EXPECT_EQ(first.hyperparameters().seed(), second.hyperparameters().seed());
  request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_epochs(4);
  EXPECT_THAT(
      FromGrpcStatus(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &second)),
      StatusIs(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED"));
}

TEST_F(JobsTest, ADataSetInUseIsNotDeleted) {
  const std::string name = NewJob();
  v1::DeleteDatasetRequest request;
  request.set_name(dataset_);
  google::protobuf::Empty empty;
  const auto erase = [&] {
    return FromGrpcStatus(datasets_->DeleteDataset(ContextWith(kTenantKey).get(), request, &empty));
  };
  EXPECT_THAT(erase(), StatusIs(kPrecondition, "DATASET_IN_USE"));
  ASSERT_OK(Cancel(name));
  EXPECT_OK(erase());
}

TEST_F(JobsTest, ARestartLosesNothing) {
  const std::string done = NewJob();
  ASSERT_OK(FinishDelta("w1", Take("w1").lease()));
  const std::string running = NewJob();
  const auto lease = Take("w2").lease();
  worker::v1::WriteBlobRequest kind;
  kind.set_checkpoint_step(4);
  ASSERT_OK(WriteBlob(kind, "w2", lease, "a checkpoint"));
  const std::string queued = NewJob();
  Restart();
  EXPECT_EQ(GetJob(done)->state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(ReadDelta(done + "/delta", "manifest.json").value(), kManifestBytes);
  EXPECT_EQ(GetJob(running)->state(), FineTuningJob::RUNNING);
  EXPECT_EQ(GetJob(queued)->state(), FineTuningJob::QUEUED);
  EXPECT_TRUE(GetDataset(dataset_)->has_report());
  // The worker goes on as if nothing had happened.
  EXPECT_TRUE(Busy("w2", lease, 5)->has_proceed());
  LetLeasesEnd();
  const auto next = Take("w3");
  EXPECT_EQ(next.lease().resource(), running);
  EXPECT_EQ(ReadBlob("w3", next.lease(), next.fine_tune().checkpoint_blob()).value(),
            "a checkpoint");
  ASSERT_OK(FinishDelta("w3", next.lease()));
  server_->SettleForTest();
  // Checkpoints go with the job's end.
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("a checkpoint")));
}

TEST_F(JobsTest, DrainEndsWatchesAndHeldCalls) {
  const std::string name = NewJob();
  const auto lease = Take("w1").lease();
  Watching watch(*jobs_, name, 0);
  EXPECT_EQ(watch.NextEvent().sequence(), 1);
  absl::StatusOr<worker::v1::SynchronizeResponse> answer;
  std::thread worker([&] { answer = Idle("held"); });
  // Not to be in time is not wrong either: then the call is refused.
  server_->Stop(absl::Seconds(5));
  worker.join();
  EXPECT_TRUE(!answer.ok() || answer->has_idle());
  while (watch.NextEvent().sequence() != 0) {
  }
  EXPECT_THAT(watch.Finish(), StatusIs(absl::StatusCode::kUnavailable));
  StopServer();
  StartServer();
  EXPECT_TRUE(Busy("w1", lease, 1)->has_proceed());
}

}  // namespace
}  // namespace ballast::server::testing
