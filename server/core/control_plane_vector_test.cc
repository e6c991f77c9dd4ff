// SPDX-License-Identifier: Apache-2.0
// Vectors in the control plane: they go before jobs, serve them, and jobs wait for them.
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/base_model_catalog.h"
#include "server/core/control_plane.h"
#include "server/core/records.h"
#include "server/core/work_of.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class ControlPlaneVectorTest : public testing::CoreFixture {};

TEST_F(ControlPlaneVectorTest, VectorsGoFirstAndWaitForTheirCertificate) {
  CreateJob();
  const std::string vector = CreateVector("vec-9");
  const auto work = Idle("w1").work();
  ASSERT_TRUE(work.has_train_vector());
  EXPECT_EQ(work.lease().resource(), vector);
  EXPECT_EQ(work.train_vector().version(), 2);
  EXPECT_EQ(work.train_vector().epochs(), 8);
  EXPECT_FALSE(work.train_vector().has_search_budget());
  EXPECT_EQ(Vector("vec-9").state(), admin::v1::Vector::TRAINING);

  SynchronizeRequest request = Finished("w1", work.lease());
  auto& result = *request.mutable_finished()->mutable_vector();
  result.set_ciphertext_digest(DigestOf("sealed"));
  result.mutable_report()->set_prohibited_loss_with(0.5);
  result.mutable_report()->add_trials()->set_chosen(true);
  const auto next = Sync(request);
  EXPECT_EQ(Vector("vec-9").state(), admin::v1::Vector::CERTIFYING);
  EXPECT_EQ(Vector("vec-9").report().prohibited_loss_with(), 0.5);
  EXPECT_EQ(Vector("vec-9").report().trials_size(), 1);
  EXPECT_THAT(Garbage(), ElementsAre("vectors/vec-9/rows"));
  // The job that was handed out with the answer runs under the one that serves.
  EXPECT_EQ(next.work().fine_tune().vector().vector_id(), "vec-1");
}

TEST_F(ControlPlaneVectorTest, AVectorThatCannotBeTrainedIsRejectedAndItsRowsGo) {
  CreateVector("vec-9");
  const auto work = Idle("w1").work();
  SynchronizeRequest request = Finished("w1", work.lease());
  request.mutable_finished()->mutable_error()->set_kind(v1::JobError::USER);
  request.mutable_finished()->mutable_error()->set_reason("LOSS_NOT_FINITE");
  Sync(request);
  EXPECT_EQ(Vector("vec-9").state(), admin::v1::Vector::REJECTED);
  EXPECT_THAT(Vector("vec-9").error_message(), HasSubstr("LOSS_NOT_FINITE"));
  EXPECT_THAT(Garbage(), ElementsAre("vectors/vec-9"));
}

TEST_F(ControlPlaneVectorTest, JobsWaitForAnActiveVectorAndSayItOnce) {
  const std::string name = CreateJob();
  ASSERT_OK(vectors_->Retire("vec-1"));
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  int messages = 0;
  for (const v1::JobEvent& event : Events(name)) messages += event.has_message() ? 1 : 0;
  EXPECT_EQ(messages, 1);
  EXPECT_THAT(jobs_->Create(now_, "acme", JobRequest("acme")),
              StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
  AddActiveVector("vec-2", 2);
  EXPECT_EQ(Idle("w1").work().lease().resource(), name);
}

TEST_F(ControlPlaneVectorTest, JobsThatWaitDoNotHoldUpOthers) {
  // More than one page of jobs on a base without a vector, then one that can run.
  AddBase("bare", "sha256:bare");
  for (int i = 0; i < 70; ++i) InsertQueuedJob(absl::StrCat("job-bare-", i), "baseModels/bare");
  now_ += absl::Seconds(1);
  const std::string name = CreateJob();
  EXPECT_EQ(Idle("w1").work().lease().resource(), name);
}

TEST_F(ControlPlaneVectorTest, ACheckpointUnderARetiredVectorIsNotUsed) {
  CreateJob();
  const auto work = Idle("w1").work();
  WriteCheckpoint("w1", work.lease(), 3);
  AddActiveVector("vec-2", 2);
  now_ += absl::Seconds(31);
  const auto next = Idle("w2").work();
  EXPECT_EQ(next.fine_tune().vector().vector_id(), "vec-2");
  EXPECT_EQ(next.fine_tune().checkpoint_blob(), "");
  EXPECT_NE(next.fine_tune().protection_handle(), work.fine_tune().protection_handle());
}

TEST_F(ControlPlaneVectorTest, ACheckpointOnOtherSafetyRowsIsNotUsed) {
  const auto set_rows = [&](double share) {
    ChangeBase([&](BaseModelRecord& base) {
      base.mutable_safety_rows()->set_digest("sha256:rows");
      base.mutable_safety_rows()->set_share(share);
    });
  };
  set_rows(0.1);
  CreateJob();
  auto work = Idle("w1").work();
  for (const double share : {0.1, 0.2}) {
    WriteCheckpoint("w1", work.lease(), 3);
    set_rows(share);
    now_ += absl::Seconds(31);
    work = Idle("w1").work();
    EXPECT_EQ(work.fine_tune().safety_rows().share(), share);
    EXPECT_EQ(work.fine_tune().checkpoint_blob().empty(), share == 0.2) << share;
  }
}

TEST_F(ControlPlaneVectorTest, ACheckpointOnRowsOfAnotherScreenIsNotUsed) {
  const auto set_screen = [&](admin::v1::ScreenAction action) {
    ChangeBase([&](BaseModelRecord& base) {
      base.mutable_screen()->set_digest("sha256:screen");
      base.mutable_screen()->set_action(action);
    });
  };
  set_screen(admin::v1::SCREEN_ACTION_REPORT);
  CreateJob();
  auto work = Idle("w1").work();
  for (const auto action : {admin::v1::SCREEN_ACTION_REPORT, admin::v1::SCREEN_ACTION_DROP}) {
    WriteCheckpoint("w1", work.lease(), 3);
    set_screen(action);
    now_ += absl::Seconds(31);
    work = Idle("w1").work();
    EXPECT_EQ(work.fine_tune().screen().action(), action);
    EXPECT_EQ(work.fine_tune().checkpoint_blob().empty(), action == admin::v1::SCREEN_ACTION_DROP);
  }
}

TEST_F(ControlPlaneVectorTest, ACurveBeginsAnewWithAnotherVector) {
  const std::string name = CreateJob();
  const auto report = [&](const std::string& worker, const worker::v1::Lease& lease, double loss) {
    SynchronizeRequest request = Request(worker);
    *request.mutable_busy()->mutable_lease() = lease;
    request.mutable_busy()->set_step(4);
    request.mutable_busy()->set_total_steps(10);
    for (int64_t step = 2; step <= 4; step += 2) {
      auto* evaluation = request.mutable_busy()->add_evaluations();
      evaluation->set_step(step);
      evaluation->set_training_loss(loss);
    }
    Sync(request);
  };
  report("w1", Idle("w1").work().lease(), 3);
  ASSERT_EQ(Job(name).progress().evaluations_size(), 2);
  AddActiveVector("vec-2", 2);
  now_ += absl::Seconds(31);
  const auto next = Idle("w2").work();
  ASSERT_EQ(next.fine_tune().vector().vector_id(), "vec-2");
  EXPECT_EQ(Job(name).progress().evaluations_size(), 0);
  EXPECT_EQ(Job(name).progress().step(), 0);
  report("w2", next.lease(), 1);
  ASSERT_EQ(Job(name).progress().evaluations_size(), 2);
  EXPECT_EQ(Job(name).progress().evaluations(0).training_loss(), 1);
}

// A base that is marked as unprotected, on a server that allows such.
class UnprotectedBaseTest : public testing::CoreFixture {
 protected:
  void SetUp() override {
    testing::CoreFixture::SetUp();
    ChangeBase([&](BaseModelRecord& base) { base.mutable_model()->set_unprotected(true); });
    ASSERT_OK_AND_ASSIGN(
        plane_, ControlPlane::Create(store_, ids_, listener_, allowing_, quotas_, {}, now_));
  }

  const ServingVectors allowing_{&signer_, /*allow_unprotected=*/true};
  JobCatalog allowing_jobs_{store_, ids_, listener_, allowing_, quotas_, price_};
};

TEST_F(UnprotectedBaseTest, NothingIsToHideInItsProgress) {
  ChangeBase(
      [&](BaseModelRecord& base) { base.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW); });
  ASSERT_OK_AND_ASSIGN(const auto job, allowing_jobs_.Create(now_, "acme", JobRequest("acme")));
  const auto lease = Idle("w1").work().lease();
  for (const int step : {1, 2}) {
    if (step == 2) {
      ASSERT_OK_AND_ASSIGN(
          plane_, ControlPlane::Create(store_, ids_, listener_, allowing_, quotas_, {}, now_));
    }
    Busy("w1", lease, step);
    ASSERT_TRUE(plane_->LiveProgress(job.name()).has_value());
    EXPECT_EQ(plane_->LiveProgress(job.name())->step(), step);
  }
}

TEST_F(UnprotectedBaseTest, ItsJobsRunWithoutAVectorEvenWhereOneIsActive) {
  ASSERT_OK_AND_ASSIGN(const auto job, allowing_jobs_.Create(now_, "acme", JobRequest("acme")));
  const auto work = Idle("w1").work();
  EXPECT_EQ(work.lease().resource(), job.name());
  EXPECT_TRUE(work.fine_tune().unprotected());
  EXPECT_FALSE(work.fine_tune().has_vector());
  EXPECT_FALSE(work.fine_tune().has_certificate());
  EXPECT_EQ(work.fine_tune().protection_handle(), "");
  Sync(FinishedDelta("w1", work.lease()));
  EXPECT_EQ(Job(job.name()).state(), FineTuningJob::SUCCEEDED);
}

TEST_F(UnprotectedBaseTest, ItHasNoEnvelopeAndItsCheckpointsAreUsed) {
  BaseModelCatalog models(store_, allowing_);
  ASSERT_OK_AND_ASSIGN(const auto model, models.Get("base"));
  EXPECT_TRUE(model.ready());
  EXPECT_TRUE(model.unprotected());
  EXPECT_FALSE(model.limits().has_envelope());
  auto request = JobRequest("acme");
  request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_learning_rate(1e-3);
  EXPECT_OK(allowing_jobs_.Create(now_, "acme", request));
  WriteCheckpoint("w1", Idle("w1").work().lease(), 3);
  now_ += absl::Seconds(31);
  EXPECT_NE(Idle("w2").work().fine_tune().checkpoint_blob(), "");
}

TEST_F(UnprotectedBaseTest, AServerThatDoesNotAllowItRunsNoneOfItsJobs) {
  ASSERT_OK_AND_ASSIGN(const auto job, allowing_jobs_.Create(now_, "acme", JobRequest("acme")));
  Restart();  // with serving_, which allows none
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_EQ(Job(job.name()).state(), FineTuningJob::QUEUED);
  EXPECT_THAT(jobs_->Create(now_, "acme", JobRequest("acme")),
              StatusIs(kPrecondition, "UNPROTECTED_NOT_ALLOWED"));
  BaseModelCatalog models(store_, serving_);
  ASSERT_OK_AND_ASSIGN(const auto model, models.Get("base"));
  EXPECT_FALSE(model.ready());
}

TEST_F(UnprotectedBaseTest, AJobOfAProtectedBaseNeverRunsSo) {
  // Its vector is gone from the database.
  AddBase("protected", "sha256:protected");
  InsertQueuedJob("job-1", "baseModels/protected");
  EXPECT_TRUE(Idle("w1").has_idle());
  ASSERT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<JobRecord>(tx, "acme", "job-1"));
    EXPECT_THAT(WorkOf(tx, *record), StatusIs(absl::StatusCode::kDataLoss, "STORE_CORRUPT"));
    return absl::OkStatus();
  }));
}

TEST(VectorOptionsTest, OnlyAMissingKlWeightBecomesTheDefault) {
  admin::v1::VectorOptions options;
  EXPECT_OK(VectorCatalog::CompleteOptions(&options));
  EXPECT_EQ(options.kl_weight(), 1);
  options.set_kl_weight(0);
  EXPECT_OK(VectorCatalog::CompleteOptions(&options));
  EXPECT_EQ(options.kl_weight(), 0);
  for (const double wrong : {-0.1, 101.0, std::numeric_limits<double>::quiet_NaN()}) {
    options.set_kl_weight(wrong);
    EXPECT_THAT(VectorCatalog::CompleteOptions(&options),
                StatusIs(absl::StatusCode::kInvalidArgument, "KL_WEIGHT_OUT_OF_RANGE"));
  }
}

TEST(VectorOptionsTest, ASearchTakesBetweenAMinuteAndADay) {
  admin::v1::VectorOptions options;
  const auto complete = [&](int64_t seconds, int32_t nanos = 0) {
    options.mutable_search_budget()->set_seconds(seconds);
    options.mutable_search_budget()->set_nanos(nanos);
    return VectorCatalog::CompleteOptions(&options);
  };
  EXPECT_OK(complete(60));
  EXPECT_OK(complete(int64_t{24} * 60 * 60));
  for (const auto& [seconds, nanos] : {std::pair<int64_t, int32_t>{59, 999999999},
                                       {0, 0},
                                       {-60, 0},
                                       {86400, 1},
                                       {60, -1},
                                       {60, 2000000000},
                                       {std::numeric_limits<int64_t>::max(), 0}}) {
    EXPECT_THAT(complete(seconds, nanos),
                StatusIs(absl::StatusCode::kInvalidArgument, "SEARCH_BUDGET_OUT_OF_RANGE"))
        << seconds << " " << nanos;
  }
}

}  // namespace
}  // namespace ballast::server
