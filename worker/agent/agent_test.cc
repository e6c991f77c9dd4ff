// SPDX-License-Identifier: Apache-2.0
// Jobs from the lease to the report of their end.
#include "worker/agent/agent.h"

#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/artifact/adapter_folder.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

TEST_F(AgentTest, SafetyRowsAreMixedInAndTheDeltaSaysSo) {
  pb::Work work = Job();
  auto* safety = work.mutable_fine_tune()->mutable_safety_rows();
  SetDataset(safety->mutable_rows(), "blob-safety", Rows(3));
  safety->set_share(0.5);
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  const auto seen = engine_.seen();
  EXPECT_THAT(seen.rows, SizeIs(8)) << "what is evaluated stays the customer's rows";
  EXPECT_THAT(seen.safety_rows, SizeIs(3));
  EXPECT_EQ(seen.safety_rows_per_epoch, 16);
  EXPECT_EQ(seen.safety_rows[0].weight, 1);
  EXPECT_EQ(finished.final_state().total_steps(), 2 * 6);

  const auto written = server_.written();
  ASSERT_OK_AND_ASSIGN(const artifact::Manifest manifest,
                       artifact::ReadManifest(written.at("delta/manifest.json")));
  EXPECT_EQ(manifest.safety_rows_digest, safety->rows().digest());
  EXPECT_EQ(manifest.safety_row_share, 0.5);
  EXPECT_THAT(written.at("delta/README.md"), HasSubstr("mixed 16 rows of its own"));
}

TEST_F(AgentTest, SafetyRowsWeighAgainstLongRows) {
  pb::Work work = Job();
  auto* task = work.mutable_fine_tune();
  SetDataset(task->mutable_training_dataset(), "blob-rows", Rows(8, std::string(600, 'y')));
  SetDataset(task->mutable_safety_rows()->mutable_rows(), "blob-safety", Rows(3));
  task->mutable_safety_rows()->set_share(0.5);
  server_.GiveWork(work);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_GT(engine_.seen().safety_rows[0].weight, 10);
  EXPECT_EQ(engine_.seen().rows[0].weight, 1);
}

TEST_F(AgentTest, SafetyRowsThatAreNotTheOperatorsTrainNothing) {
  pb::Work work = Job();
  auto* safety = work.mutable_fine_tune()->mutable_safety_rows();
  SetDataset(safety->mutable_rows(), "blob-safety", Rows(3));
  safety->mutable_rows()->set_digest(DigestOf("others"));
  safety->set_share(0.5);
  server_.GiveWork(work);
  StartAgent();
  EXPECT_FALSE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().trainings, 0);
}

TEST_F(AgentTest, TrainsAJobUnderItsVectorAndWritesTheDelta) {
  pb::Work work = Job();
  SetDataset(work.mutable_fine_tune()->mutable_validation_dataset(), "blob-validation", Rows(3));
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_EQ(finished.lease().resource(), kJob);
  EXPECT_EQ(finished.lease().epoch(), 1);

  EXPECT_EQ(finished.delta().vector_use().rows(), 8);
  EXPECT_EQ(finished.delta().vector_use().rows_under_vector(), 8);

  const auto seen = engine_.seen();
  EXPECT_EQ(seen.vector, kClearVector);
  EXPECT_FALSE(seen.trained_without_vector);
  EXPECT_THAT(seen.rows, SizeIs(8));
  EXPECT_THAT(seen.validation_rows, SizeIs(3));
  EXPECT_EQ(seen.config.learning_rate, 3e-4);
  EXPECT_EQ(seen.config.epochs, 2);
  EXPECT_EQ(seen.config.batch_rows, 4);
  EXPECT_EQ(seen.config.lora.rank, 2);
  EXPECT_EQ(seen.config.lora.alpha, 4);
  EXPECT_EQ(seen.config.warmup_ratio, 0.1);
  EXPECT_EQ(seen.config.schedule, Schedule::kLinear);
  EXPECT_EQ(seen.config.seed, 77u);
  EXPECT_EQ(seen.config.vector_policy, VectorPolicy::kAlways);

  const auto& state = finished.final_state();
  EXPECT_EQ(state.step(), 4);
  EXPECT_EQ(state.total_steps(), 4);
  ASSERT_EQ(state.evaluations_size(), 4);
  EXPECT_EQ(state.evaluations(3).step(), 4);
  EXPECT_EQ(state.evaluations(3).training_loss(), 1.0);
  EXPECT_EQ(state.evaluations(3).validation_loss(), 1.25);

  const auto written = server_.written();
  ASSERT_EQ(finished.delta().files_size(), 4);
  for (const auto& file : finished.delta().files()) {
    ASSERT_THAT(written, Contains(Key("delta/" + file.path())));
    const std::string& bytes = written.at("delta/" + file.path());
    EXPECT_EQ(file.digest(), DigestOf(bytes));
    EXPECT_EQ(file.size_bytes(), static_cast<int64_t>(bytes.size()));
  }
  EXPECT_EQ(finished.delta().manifest_digest(), DigestOf(written.at("delta/manifest.json")));
  ASSERT_OK_AND_ASSIGN(const artifact::Manifest manifest,
                       artifact::ReadManifest(written.at("delta/manifest.json")));
  EXPECT_EQ(manifest.job, kJob);
  EXPECT_EQ(manifest.attempt, 1);
  EXPECT_EQ(manifest.base_digest, work.base_model().digest());
  EXPECT_EQ(manifest.training_dataset_digest, work.fine_tune().training_dataset_digest());
  EXPECT_EQ(manifest.protection_handle, "handle-1");
  EXPECT_FALSE(manifest.certified);
  EXPECT_EQ(manifest.code_version, "1.2.3");
  ASSERT_OK_AND_ASSIGN(const auto specs, artifact::AdapterTensorSpecs(kConfig, 2));
  EXPECT_OK(
      artifact::ReadAdapterModel(specs, written.at("delta/adapter/adapter_model.safetensors")));
}

TEST_F(AgentTest, MapsByRowPolicyAndCosineSchedule) {
  pb::Work work = Job();
  work.mutable_fine_tune()->set_vector_always(false);
  work.mutable_fine_tune()->mutable_job()->mutable_hyperparameters()->set_schedule(
      ballast::v1::Hyperparameters::COSINE);
  server_.GiveWork(work);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().config.vector_policy, VectorPolicy::kByRow);
  EXPECT_EQ(engine_.seen().config.schedule, Schedule::kCosine);
}

TEST_F(AgentTest, TakesUpDownloadsThatBreak) {
  server_.BreakReadsAfter(700);
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_THAT(engine_.seen().rows, SizeIs(8));
}

TEST_F(AgentTest, WaitsForAServerThatDoesNotAnswer) {
  server_.FailCalls(5);
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(server_.failed_calls(), 5);
  EXPECT_THAT(log_.str(), HasSubstr("does not give work"));
}

TEST_F(AgentTest, AsksInItsOwnTimeWhenCallsAreNotHeld) {
  server_.AnswerIdleAtOnce();
  StartAgent();
  server_.WaitForIdle(1);
  const auto begin = std::chrono::steady_clock::now();
  server_.WaitForIdle(11);
  // 20 ms between two.
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(180));
}

TEST_F(AgentTest, TakesNoWorkForAWhileAfterAPlatformFailure) {
  pb::Work work = Job();
  work.mutable_fine_tune()->clear_vector();
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_TRUE(server_.last_finished_draining());
  server_.GiveWork(Job(2));
  EXPECT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_FALSE(server_.last_finished_draining());
  EXPECT_THAT(log_.str(), HasSubstr("no work is taken for 1ms"));
}

TEST_F(AgentTest, StopsWhenTheOwnerCancels) {
  engine_.HoldAt(1);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(1);
  server_.OrderStop(/*lease_lost=*/false);
  const auto finished = server_.WaitForFinished();
  EXPECT_TRUE(finished.has_cancelled()) << finished.DebugString();
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, ReportsNothingForALostLeaseAndGoesOn) {
  engine_.HoldAt(1);
  server_.GiveWork(Job(1));
  StartAgent();
  engine_.WaitForStep(1);
  server_.OrderStop(/*lease_lost=*/true);
  server_.WaitForIdle(1);
  engine_.Release();
  server_.GiveWork(Job(5));
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.lease().epoch(), 5);
  EXPECT_TRUE(finished.has_delta());
}

TEST_F(AgentTest, DropsTheWorkWhenAHeartbeatSaysThatTheLeaseIsLost) {
  engine_.HoldAt(1);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(1);
  server_.LoseLease();
  server_.WaitForIdle(1);
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, HandsBackWithACheckpointAndResumesFromIt) {
  engine_.HoldAt(3);
  server_.GiveWork(Job(1));
  StartAgent(/*checkpoint_steps=*/2);
  engine_.WaitForStep(3);
  agent_->Drain();
  const auto handed_back = server_.WaitForFinished();
  ASSERT_TRUE(handed_back.has_handed_back()) << handed_back.DebugString();
  EXPECT_EQ(handed_back.final_state().checkpoint_step(), 3);
  const std::string checkpoint = server_.written().at("checkpoint");
  EXPECT_EQ(handed_back.final_state().checkpoint_digest(), DigestOf(checkpoint));
  StopAgent();
  EXPECT_TRUE(server_.last_request().draining());

  // S3: sealed to workers.
  EXPECT_THAT(checkpoint, Not(HasSubstr("fake checkpoint")));

  engine_.Release();
  server_.SetBlob("blob-checkpoint", checkpoint);
  pb::Work again = Job(2);
  again.mutable_fine_tune()->set_checkpoint_blob("blob-checkpoint");
  server_.GiveWork(again);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().first_step, 3);
}

TEST_F(AgentTest, PausesWithACheckpointAndTakesOtherWork) {
  engine_.HoldAt(3);
  server_.GiveWork(Job(1));
  StartAgent();
  engine_.WaitForStep(3);
  server_.OrderPause();
  const auto paused = server_.WaitForFinished();
  ASSERT_TRUE(paused.has_paused()) << paused.DebugString();
  EXPECT_FALSE(paused.paused().checkpoint_failed());
  EXPECT_EQ(paused.final_state().checkpoint_step(), 3);
  EXPECT_FALSE(server_.last_finished_draining());
  const std::string checkpoint = server_.written().at("checkpoint");

  engine_.Release();
  server_.SetBlob("blob-checkpoint", checkpoint);
  pb::Work again = Job(2);
  again.mutable_fine_tune()->set_checkpoint_blob("blob-checkpoint");
  server_.GiveWork(again);
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().first_step, 3);
}

TEST_F(AgentTest, APauseByRowIsToldByNoCheckpoint) {
  pb::Work work = Job();
  work.mutable_fine_tune()->set_vector_always(false);
  engine_.HoldAt(3);
  server_.GiveWork(work);
  StartAgent(/*checkpoint_steps=*/50);
  engine_.WaitForStep(3);
  EXPECT_TRUE(engine_.seen().config.checkpoint_at_evaluations);
  server_.OrderPause();
  const auto paused = server_.WaitForFinished();
  ASSERT_TRUE(paused.has_paused()) << paused.DebugString();
  EXPECT_FALSE(paused.paused().checkpoint_failed());
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, SaysThatTheCheckpointOfAPauseFailed) {
  engine_.HoldAt(3);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(3);
  server_.FailWrites(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "disk full"));
  server_.OrderPause();
  const auto paused = server_.WaitForFinished();
  ASSERT_TRUE(paused.has_paused()) << paused.DebugString();
  EXPECT_TRUE(paused.paused().checkpoint_failed());
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, StartsAnewWhenTheCheckpointIsAnotherJobs) {
  engine_.HoldAt(3);
  server_.GiveWork(Job(1));
  StartAgent();
  engine_.WaitForStep(3);
  agent_->Drain();
  ASSERT_TRUE(server_.WaitForFinished().has_handed_back());
  server_.SetBlob("blob-checkpoint", server_.written().at("checkpoint"));
  StopAgent();

  engine_.Release();
  pb::Work other = Job(1);
  other.mutable_lease()->set_resource("tenants/acme/fineTuningJobs/job-2");
  other.mutable_fine_tune()->set_checkpoint_blob("blob-checkpoint");
  server_.GiveWork(other);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().first_step, 0);
}

TEST_F(AgentTest, KeepsACheckpointThatCannotBeReadForNow) {
  pb::Work work = Job(2);
  ASSERT_OK_AND_ASSIGN(
      const std::string sealed,
      vault_.Seal(SecretBuffer::CopyOf("written by another version"),
                  {absl::StrCat("checkpoint of ", kJob), 1, work.base_model().digest()}));
  server_.SetBlob("blob-checkpoint", sealed);
  work.mutable_fine_tune()->set_checkpoint_blob("blob-checkpoint");
  server_.FailReadsOf("blob-checkpoint", {grpc::StatusCode::INTERNAL, "the disk hiccups"});
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_EQ(engine_.seen().trainings, 0);
  // What is gone for good is done without.
  server_.FailReadsOf("blob-checkpoint", {grpc::StatusCode::NOT_FOUND, "deleted"});
  server_.GiveWork(work);
  EXPECT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().first_step, 0);
}

TEST_F(AgentTest, KeepsItsLeaseUntilTheResultIsTaken) {
  for (const auto code : {grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL,
                          grpc::StatusCode::UNAVAILABLE}) {
    server_.FailReports(1'000'000, code);
    server_.GiveWork(Job());
    if (agent_ == nullptr) StartAgent();
    server_.WaitForFailedReports(2);
    server_.WaitForHeartbeats(2);
    server_.FailReports(0, grpc::StatusCode::OK);
    EXPECT_TRUE(server_.WaitForFinished().has_delta());
  }
}

TEST_F(AgentTest, StartsAnewWhenTheEngineRefusesTheCheckpoint) {
  pb::Work work = Job(2);
  ASSERT_OK_AND_ASSIGN(
      const std::string sealed,
      vault_.Seal(SecretBuffer::CopyOf("written by another version"),
                  {absl::StrCat("checkpoint of ", kJob), 1, work.base_model().digest()}));
  server_.SetBlob("blob-checkpoint", sealed);
  work.mutable_fine_tune()->set_checkpoint_blob("blob-checkpoint");
  server_.GiveWork(work);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().trainings, 2);
  EXPECT_EQ(engine_.seen().first_step, 0);
}

TEST_F(AgentTest, RefusesADataSetThatIsNotTheUploadedOne) {
  server_.GiveWork(Job());
  server_.SetBlob("blob-rows", Rows(9));
  ExpectNotTrainedFor("DATASET_CORRUPT");
}

TEST_F(AgentTest, RefusesADataSetWithFewerRowsThanWereAdmitted) {
  pb::Work work = Job();
  work.mutable_fine_tune()->mutable_training_dataset()->set_rows_accepted(9);
  server_.GiveWork(work);
  ExpectNotTrainedFor("DATASET_ROWS_DIFFER");
}

TEST_F(AgentTest, LeavesOutWhatWasTooLongWhenTheDataSetWasChecked) {
  pb::Work work = Job();
  auto* dataset = work.mutable_fine_tune()->mutable_training_dataset();
  SetDataset(dataset, "blob-rows", Rows(8) + Rows(1, "a much longer reply than any other"));
  dataset->set_rows_accepted(8);
  dataset->set_longest_row_tokens(60);
  server_.GiveWork(work);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta()) << log_.str();
  EXPECT_THAT(engine_.seen().rows, SizeIs(8));
}

TEST_F(AgentTest, RefusesABaseThatIsNotWhatItsDigestSays) {
  server_.GiveWork(Job());
  server_.SetBlob("blob-weights", std::string(5000, 'x'));
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().reason(), "BASE_MODEL_UNUSABLE");
  EXPECT_EQ(engine_.seen().loads, 0);
}

TEST_F(AgentTest, KeepsTheBaseLoadedBetweenJobs) {
  server_.GiveWork(Job(1));
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  server_.GiveWork(Job(2));
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().loads, 1);
  pb::Work other = Job(3);
  *other.mutable_base_model() = Base("another model");
  SetVector(other.mutable_fine_tune(), {"vec-1", 2, other.base_model().digest()});
  server_.GiveWork(other);
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_EQ(engine_.seen().loads, 2);
}

TEST_F(AgentTest, StopsWhileIdleAndSaysSo) {
  StartAgent();
  server_.WaitForIdle(1);
  StopAgent();
  EXPECT_TRUE(server_.last_request().draining());
  EXPECT_TRUE(server_.last_request().has_idle());
  EXPECT_EQ(server_.last_request().worker_id(), "worker-1");
  EXPECT_EQ(server_.last_request().version(), "1.2.3");
}

TEST_F(AgentTest, DoesNotStartWithoutACacheFolder) {
  ASSERT_OK(WriteFileAtomically(cache_dir_, "a file where the folder should be"));
  WorkerClientOptions client;
  client.server_address = server_.address();
  ASSERT_OK_AND_ASSIGN(auto made, WorkerClient::Create(client));
  AgentOptions options;
  options.cache_dir = cache_dir_;
  Agent agent(
      options, *made, vault_,
      [this](const std::string& folder) { return testing::LoadFakeEngine(folder, engine_); },
      [](const std::string&) -> absl::StatusOr<text::ModelText> {
        return testing::FakeModelText();
      },
      clock_);
  EXPECT_FALSE(agent.Start().ok());
}

}  // namespace
}  // namespace ballast::worker::agent
