// SPDX-License-Identifier: Apache-2.0
// Two servers on one store: each has a control plane of its own, and a worker may turn to either.
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/control_plane.h"
#include "server/core/live_servers.h"
#include "server/core/resource_name.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

// Names of the jobs that it hears of.
class RecordingListener : public SilentListener {
 public:
  void JobChanged(const std::string& tenant, const std::string& id) override {
    changed.push_back(JobName(tenant, id));
  }
  void JobMoved(const std::string& tenant, const std::string& id) override {
    moved.push_back(JobName(tenant, id));
  }
  std::vector<std::string> changed, moved;
};

class SeveralServersTest : public CoreFixture {
 protected:
  void SetUp() override {
    store_.ShareForTest();
    CoreFixture::SetUp();
    Restart();
    other_ = NewPlane();
  }

  std::unique_ptr<ControlPlane> NewPlane() {
    ControlPlane::Options options;
    options.max_attempts = 3;
    auto plane = ControlPlane::Create(store_, ids_, at_other_, serving_, quotas_, options, now_);
    EXPECT_OK(plane);
    return *std::move(plane);
  }

  SynchronizeResponse SyncAt(ControlPlane& plane, const SynchronizeRequest& request) {
    auto response = plane.Synchronize(now_, request);
    EXPECT_OK(response);
    return response.value_or(SynchronizeResponse());
  }
  SynchronizeResponse IdleAt(ControlPlane& plane, const std::string& worker) {
    SynchronizeRequest request = Request(worker);
    request.mutable_idle();
    return SyncAt(plane, request);
  }
  SynchronizeResponse BusyAt(ControlPlane& plane, const std::string& worker,
                             const worker::v1::Lease& lease, int64_t step) {
    SynchronizeRequest request = Request(worker);
    *request.mutable_busy()->mutable_lease() = lease;
    request.mutable_busy()->set_step(step);
    request.mutable_busy()->set_total_steps(100);
    return SyncAt(plane, request);
  }
  // Both look at the clock, again and again.
  void Pass(absl::Duration time) {
    for (absl::Duration passed; passed < time; passed += absl::Seconds(1)) {
      now_ += absl::Seconds(1);
      ASSERT_OK(plane_->Enter(now_));
      ASSERT_OK(other_->Enter(now_));
    }
  }

  RecordingListener at_other_;
  std::unique_ptr<ControlPlane> other_;
};

TEST_F(SeveralServersTest, AWorkerGoesOnAtAnotherServer) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  EXPECT_EQ(lease.resource(), job);
  EXPECT_TRUE(BusyAt(*other_, "w", lease, 1).has_proceed());
  EXPECT_TRUE(BusyAt(*plane_, "w", lease, 2).has_proceed());
  EXPECT_THAT(other_->CheckReadable(now_, "w", lease, "no/blob/of/it"),
              StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
  SyncAt(*other_, FinishedDelta("w", lease));
  EXPECT_EQ(Job(job).state(), FineTuningJob::SUCCEEDED);
  // The first server hears no more of it.
  Pass(absl::Minutes(2));
  EXPECT_EQ(Job(job).state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(plane_->LeasesLost() + other_->LeasesLost(), 0);
}

TEST_F(SeveralServersTest, SignsOfLifeAtOneServerKeepTheLeaseAtTheOther) {
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  for (int i = 0; i < 60; ++i) {
    Pass(absl::Seconds(2));
    EXPECT_TRUE(BusyAt(*other_, "w", lease, i).has_proceed());
  }
  EXPECT_EQ(plane_->LeasesLost() + other_->LeasesLost(), 0);
}

TEST_F(SeveralServersTest, ASilentWorkersLeaseEndsOnceWhereverItWasGiven) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  EXPECT_TRUE(BusyAt(*plane_, "w", lease, 1).has_proceed());
  Pass(absl::Seconds(20));
  EXPECT_EQ(Job(job).state(), FineTuningJob::RUNNING);
  Pass(absl::Seconds(25));
  EXPECT_EQ(Job(job).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(plane_->LeasesLost() + other_->LeasesLost(), 1);
  EXPECT_TRUE(BusyAt(*plane_, "w", lease, 2).stop().lease_lost());
  EXPECT_TRUE(BusyAt(*other_, "w", lease, 2).stop().lease_lost());
}

TEST_F(SeveralServersTest, TheDeathOfTheServerThatGaveALeaseEndsNothing) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  plane_.reset();
  for (int i = 0; i < 30; ++i) {
    now_ += absl::Seconds(2);
    EXPECT_TRUE(BusyAt(*other_, "w", lease, i).has_proceed());
  }
  SyncAt(*other_, FinishedDelta("w", lease));
  EXPECT_EQ(Job(job).state(), FineTuningJob::SUCCEEDED);
}

TEST_F(SeveralServersTest, TheLeaseOfAServerThatDiedWithItsWorkerEnds) {
  const std::string job = CreateJob();
  IdleAt(*plane_, "w");
  plane_.reset();
  for (int i = 0; i < 40; ++i) {
    now_ += absl::Seconds(1);
    ASSERT_OK(other_->Enter(now_));
  }
  EXPECT_EQ(Job(job).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(IdleAt(*other_, "w2").work().lease().resource(), job);
}

TEST_F(SeveralServersTest, NoLeaseEndsBecauseTheStoreWasAway) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  BusyAt(*plane_, "w", lease, 1);
  Pass(absl::Seconds(6));
  now_ += absl::Minutes(5);
  ASSERT_OK(other_->Enter(now_));
  EXPECT_TRUE(BusyAt(*plane_, "w", lease, 2).has_proceed());
  EXPECT_EQ(other_->LeasesLost(), 0);
}

TEST_F(SeveralServersTest, AnAnswerThatWasLostIsGivenAgainByTheOther) {
  const std::string job = CreateJob();
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  Pass(absl::Seconds(6));
  const auto again = IdleAt(*other_, "w").work().lease();
  EXPECT_EQ(again.resource(), job);
  EXPECT_EQ(again.epoch(), lease.epoch());
}

TEST_F(SeveralServersTest, WorkThatItsWorkerHasForgottenIsLostAtTheOtherServerToo) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  BusyAt(*plane_, "w", lease, 1);
  // It died and was started again.
  const auto next = IdleAt(*other_, "w");
  EXPECT_EQ(other_->LeasesLost(), 1);
  EXPECT_EQ(next.work().lease().resource(), job);
  EXPECT_GT(next.work().lease().epoch(), lease.epoch());
}

TEST_F(SeveralServersTest, ProgressIsSeenAtTheOther) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  BusyAt(*plane_, "w", lease, 6);
  EXPECT_FALSE(other_->LiveProgress(job).has_value());
  Pass(absl::Seconds(6));
  ASSERT_TRUE(other_->LiveProgress(job).has_value());
  EXPECT_EQ(other_->LiveProgress(job)->step(), 6);
  EXPECT_EQ(other_->LiveProgress(job)->total_steps(), 100);
  BusyAt(*plane_, "w", lease, 9);
  Pass(absl::Seconds(6));
  EXPECT_EQ(other_->LiveProgress(job)->step(), 9);
}

TEST_F(SeveralServersTest, WhereProgressIsTakenOverItIsToldOf) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  BusyAt(*plane_, "w", lease, 6);
  Pass(absl::Seconds(6));
  EXPECT_THAT(at_other_.moved, Contains(job));
  at_other_.moved.clear();
  Pass(absl::Seconds(12));  // in which nothing was heard of it
  EXPECT_THAT(at_other_.moved, IsEmpty());
  BusyAt(*plane_, "w", lease, 9);
  Pass(absl::Seconds(6));
  EXPECT_THAT(at_other_.moved, ElementsAre(job));
  EXPECT_THAT(at_other_.changed, IsEmpty());
}

TEST_F(SeveralServersTest, AHeartbeatChangesAJobWhereItBringsNews) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*other_, "w").work().lease();
  EXPECT_THAT(at_other_.changed, ElementsAre(job));
  BusyAt(*other_, "w", lease, 6);
  EXPECT_THAT(at_other_.changed, ElementsAre(job));
  EXPECT_THAT(at_other_.moved, ElementsAre(job));
  SynchronizeRequest news = Request("w");
  *news.mutable_busy()->mutable_lease() = lease;
  news.mutable_busy()->set_step(7);
  news.mutable_busy()->add_evaluations()->set_step(7);
  SyncAt(*other_, news);
  EXPECT_THAT(at_other_.changed, ElementsAre(job, job));
}

TEST_F(SeveralServersTest, AnOwnersWishReachesTheWorkerAtTheOther) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  Cancel(job);
  EXPECT_TRUE(BusyAt(*other_, "w", lease, 1).has_stop());
}

TEST_F(SeveralServersTest, WorkersAreListedByBoth) {
  IdleAt(*plane_, "w1");
  IdleAt(*other_, "w2");
  Pass(absl::Seconds(6));
  EXPECT_EQ(plane_->ListWorkers(now_).size(), 2u);
  EXPECT_EQ(other_->ListWorkers(now_).size(), 2u);
  // And forgotten by both.
  now_ += absl::Hours(2);
  ASSERT_OK(plane_->Enter(now_));
  ASSERT_OK(other_->Enter(now_));
  EXPECT_THAT(plane_->ListWorkers(now_), IsEmpty());
  EXPECT_THAT(NewPlane()->ListWorkers(now_), IsEmpty());
}

TEST_F(SeveralServersTest, ABlobWhoseLeaseEndedAtTheOtherIsGarbage) {
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  worker::v1::WriteBlobRequest first;
  first.set_worker_id("w");
  *first.mutable_lease() = lease;
  first.set_delta_path("adapter/a");
  ASSERT_OK_AND_ASSIGN(const std::string blob, plane_->BlobToWrite(now_, first));
  const auto slow = [&]() -> absl::Status {
    for (int i = 0; i < 40; ++i) {
      now_ += absl::Seconds(1);
      EXPECT_OK(other_->Enter(now_));
    }
    return absl::OkStatus();
  };
  EXPECT_THAT(plane_->CommitBlob(now_, first, blob, slow),
              StatusIs(absl::StatusCode::kFailedPrecondition, "LEASE_LOST"));
  EXPECT_THAT(Garbage(), ::testing::Contains(blob));
}

TEST_F(SeveralServersTest, ALeaseThatIsRenewedWhileAResultIsReadIsKeptByTheOther) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  for (int i = 0; i < 20; ++i) {
    Pass(absl::Seconds(6));
    ASSERT_OK(plane_->Renew(now_, "w", lease));
  }
  EXPECT_EQ(Job(job).state(), FineTuningJob::RUNNING);
  EXPECT_EQ(plane_->LeasesLost() + other_->LeasesLost(), 0);
}

TEST_F(SeveralServersTest, ADataSetIsWrittenAndCheckedAtOneServerAtATime) {
  LiveServers one(store_, "s3://bucket", "1"), two(store_, "s3://bucket", "1");
  store_.BeServerForTest("one");
  ASSERT_OK(one.Join(now_));
  store_.BeServerForTest("two");
  ASSERT_OK(two.Join(now_));
  v1::CreateDatasetRequest request;
  request.set_parent("tenants/acme");
  request.mutable_dataset()->set_base_model("baseModels/base");
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset, datasets_->Create(now_, "acme", request));
  const TenantName name = {"acme", dataset.name().substr(dataset.name().rfind('/') + 1)};

  store_.BeServerForTest("one");
  ASSERT_OK(datasets_->BeginUpload("acme", name).status());
  store_.BeServerForTest("two");
  EXPECT_THAT(datasets_->BeginUpload("acme", name),
              StatusIs(absl::StatusCode::kAborted, "UPLOAD_IN_PROGRESS"));
  EXPECT_THAT(datasets_->FinishUpload("acme", name, 1, DigestOf("x")),
              StatusIs(absl::StatusCode::kAborted, "UPLOAD_IN_PROGRESS"));
  store_.BeServerForTest("one");
  ASSERT_OK(datasets_->EndUpload(name));
  store_.BeServerForTest("two");
  ASSERT_OK(datasets_->BeginUpload("acme", name).status());
  ASSERT_OK(datasets_->FinishUpload("acme", name, 1, DigestOf("x")).status());

  ASSERT_OK_AND_ASSIGN(const auto taken, datasets_->NextToValidate());
  ASSERT_TRUE(taken.has_value());
  store_.BeServerForTest("one");
  ASSERT_OK_AND_ASSIGN(const auto none, datasets_->NextToValidate());
  EXPECT_FALSE(none.has_value());
  v1::ValidationReport report;
  report.set_rows_accepted(1);
  ASSERT_OK(datasets_->StoreReport(*taken, report));
  ASSERT_OK_AND_ASSIGN(v1::Dataset stored, datasets_->Get("acme", name));
  EXPECT_EQ(stored.state(), v1::Dataset::VALIDATING);
  // A server that is gone checks nothing any more.
  store_.BeServerForTest("two");
  ASSERT_OK(two.Leave());
  store_.BeServerForTest("one");
  ASSERT_OK_AND_ASSIGN(const auto again, datasets_->NextToValidate());
  ASSERT_TRUE(again.has_value());
  ASSERT_OK(datasets_->StoreReport(*again, report));
  ASSERT_OK_AND_ASSIGN(stored, datasets_->Get("acme", name));
  EXPECT_EQ(stored.state(), v1::Dataset::READY);
}

TEST_F(SeveralServersTest, AFileThatCameTwiceAndWasDeliveredIsNoGarbage) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  worker::v1::WriteBlobRequest first;
  first.set_worker_id("w");
  *first.mutable_lease() = lease;
  const auto report = FinishedDelta("w", lease);
  first.set_delta_path(report.finished().delta().files(0).path());
  ASSERT_OK_AND_ASSIGN(const std::string blob, plane_->BlobToWrite(now_, first));
  // The store is slow here; its worker writes the file again at the other server, and finishes.
  const auto slow = [&] {
    SyncAt(*other_, report);
    return absl::OkStatus();
  };
  EXPECT_THAT(plane_->CommitBlob(now_, first, blob, slow),
              StatusIs(absl::StatusCode::kFailedPrecondition, "LEASE_LOST"));
  EXPECT_EQ(Job(job).state(), FineTuningJob::SUCCEEDED);
  EXPECT_THAT(Garbage(), ::testing::Not(::testing::Contains(blob)));
}

TEST_F(SeveralServersTest, ACheckpointThatComesLateDoesNotSetTheJobBack) {
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  worker::v1::WriteBlobRequest first;
  first.set_worker_id("w");
  *first.mutable_lease() = lease;
  const auto at = [&](int64_t step) {
    first.set_checkpoint_step(step);
    return other_->BlobToWrite(now_, first).value();
  };
  const std::string late = at(10), newer = at(20);
  const auto slow = [&] {
    first.set_checkpoint_step(20);
    return other_->CommitBlob(now_, first, newer, [] { return absl::OkStatus(); });
  };
  worker::v1::WriteBlobRequest old = first;
  old.set_checkpoint_step(10);
  ASSERT_OK(plane_->CommitBlob(now_, old, late, slow));
  EXPECT_THAT(Garbage(), ::testing::Contains(late));
  EXPECT_THAT(Garbage(), ::testing::Not(::testing::Contains(newer)));
}

TEST_F(SeveralServersTest, AHeldCallThatItsWorkerHasLeftEndsNothing) {
  const std::string job = CreateJob();
  const auto lease = IdleAt(*other_, "w").work().lease();
  BusyAt(*other_, "w", lease, 1);
  SynchronizeRequest old = Request("w");
  old.mutable_idle();
  const auto answers = plane_->SynchronizeHeld(now_, {&old});
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_THAT(answers[0], StatusIs(absl::StatusCode::kAborted, "CALL_STALE"));
  EXPECT_TRUE(BusyAt(*other_, "w", lease, 2).has_proceed());
}

TEST_F(SeveralServersTest, AnAnswerThatWasLostAMomentAgoIsGivenAgainByTheOther) {
  const std::string job = CreateJob();
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  const auto again = IdleAt(*other_, "w").work().lease();
  EXPECT_EQ(again.resource(), job);
  EXPECT_EQ(again.epoch(), lease.epoch());
}

TEST_F(SeveralServersTest, ClocksThatDifferByHoursEndNoLease) {
  CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  for (int i = 0; i < 60 * 30; ++i) {
    now_ += absl::Seconds(2);
    EXPECT_TRUE(BusyAt(*plane_, "w", lease, i).has_proceed());
    ASSERT_OK(plane_->Enter(now_));
    ASSERT_OK(other_->Enter(now_ + absl::Hours(5)));
  }
  EXPECT_EQ(plane_->LeasesLost() + other_->LeasesLost(), 0);
}

TEST_F(SeveralServersTest, ProgressByRowIsSeenAtTheOtherFromEvaluationsOnly) {
  ChangeBase(
      [](BaseModelRecord& base) { base.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW); });
  const std::string job = CreateJob();
  const auto lease = IdleAt(*plane_, "w").work().lease();
  BusyAt(*plane_, "w", lease, 6);
  Pass(absl::Seconds(6));
  EXPECT_FALSE(other_->LiveProgress(job).has_value());
}

}  // namespace
}  // namespace ballast::server::testing
