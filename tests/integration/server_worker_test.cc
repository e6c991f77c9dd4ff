// SPDX-License-Identifier: Apache-2.0
// The real server and the real agent over loopback, with an engine without tensors: what becomes of
// a job when everything goes well, and when workers are lost, stopped or cannot open the vector.
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/artifact/adapter_folder.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/tcp_proxy.h"
#include "tests/integration/world.h"

namespace ballast::testing {
namespace {

using ::ballast::v1::FineTuningJob;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// States that a job entered, in order.
std::vector<FineTuningJob::State> States(const std::vector<v1::JobEvent>& events) {
  std::vector<FineTuningJob::State> states;
  for (const v1::JobEvent& event : events) {
    if (event.has_state_changed()) states.push_back(event.state_changed().state());
  }
  return states;
}

TEST(ServerWorkerTest, AJobRunsUnderAVectorToADeltaThatVerifies) {
  World world;
  const auto worker = world.StartWorker("w1");
  const admin::v1::Vector vector = world.TrainVector();
  EXPECT_EQ(vector.report().prohibited_loss_with(), 0.25);
  const FineTuningJob job = world.WaitForState(world.CreateJob().name(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(job.progress().step(), 16);
  EXPECT_GE(job.progress().evaluations_size(), 10);

  const auto seen = worker->engine().seen();
  EXPECT_FALSE(seen.trained_without_vector);
  EXPECT_EQ(seen.vector, seen.trained_vector)
      << "the job ran under another vector than was trained";
  EXPECT_EQ(seen.rows.size(), 16u);

  // Download, and check as `ballast delta verify` does.
  const std::string folder = world.folder() + "/download";
  const v1::DeltaManifest manifest = world.GetManifest(job.delta());
  EXPECT_EQ(manifest.digest(), job.manifest_digest());
  for (const v1::DeltaFile& file : manifest.files()) {
    const std::string path = absl::StrCat(folder, "/", file.path());
    ASSERT_OK(MakeDirectories(std::filesystem::path(path).parent_path()));
    ASSERT_OK(WriteFileAtomically(path, world.ReadDelta(job.delta(), file.path())));
  }
  ASSERT_OK_AND_ASSIGN(const artifact::VerifyResult verified, artifact::VerifyFolder(folder));
  EXPECT_THAT(verified.problems, IsEmpty());
  EXPECT_EQ(verified.manifest_digest, job.manifest_digest());
  EXPECT_EQ(verified.manifest.job, job.name());
  EXPECT_THAT(verified.manifest.protection_handle, Not(HasSubstr("vec-")));
}

TEST(ServerWorkerTest, ALostWorkersJobIsTakenByAnotherAndItsLateReportChangesNothing) {
  World world;
  TcpProxy wire(world.address());
  auto lost = world.StartWorker("lost", 'k', 0, wire.address());
  world.TrainVector();
  lost->engine().HoldAt(3);
  const std::string name = world.CreateJob().name();
  lost->engine().WaitForStep(3);
  wire.Cut();
  world.Pass(absl::Seconds(31));
  world.WaitForState(name, FineTuningJob::QUEUED);

  const auto second = world.StartWorker("second");
  const FineTuningJob done = world.WaitForState(name, FineTuningJob::SUCCEEDED);
  EXPECT_EQ(done.attempt(), 2);
  const v1::DeltaManifest before = world.GetManifest(done.delta());

  // The lost worker comes back: what it still has is refused, and it works on.
  wire.Mend();
  lost->engine().Release();
  second->Stop();
  const FineTuningJob next = world.WaitForState(world.CreateJob().name(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(next.attempt(), 1);
  EXPECT_EQ(lost->engine().seen().trainings, 2);
  const FineTuningJob after = world.GetJob(name);
  EXPECT_EQ(after.manifest_digest(), done.manifest_digest());
  EXPECT_EQ(after.etag(), done.etag());
  EXPECT_EQ(world.GetManifest(done.delta()).SerializeAsString(), before.SerializeAsString());
}

TEST(ServerWorkerTest, ARunningJobIsCancelled) {
  World world;
  const auto worker = world.StartWorker("w1");
  world.TrainVector();
  worker->engine().HoldAt(2);
  const std::string name = world.CreateJob().name();
  worker->engine().WaitForStep(2);
  world.CancelJob(name);
  const FineTuningJob job = world.WaitForState(name, FineTuningJob::CANCELLED);
  EXPECT_THAT(job.delta(), IsEmpty());
  EXPECT_THAT(States(world.Events(name)),
              ::testing::ElementsAre(FineTuningJob::QUEUED, FineTuningJob::RUNNING,
                                     FineTuningJob::CANCELLING, FineTuningJob::CANCELLED));
}

TEST(ServerWorkerTest, AStoppedWorkersJobResumesFromItsCheckpoint) {
  World world;
  auto first = world.StartWorker("first", 'k', /*checkpoint_steps=*/2);
  world.TrainVector();
  first->engine().HoldAt(5);
  const std::string name = world.CreateJob().name();
  first->engine().WaitForStep(5);
  first->Stop();
  world.WaitForState(name, FineTuningJob::QUEUED);
  const auto second = world.StartWorker("second");
  world.WaitForState(name, FineTuningJob::SUCCEEDED);
  EXPECT_EQ(second->engine().seen().first_step, 5);
  // The adapter is that of a job that nobody stopped: it depends on the configuration and rows
  // alone.
  EXPECT_EQ(second->engine().seen().rows.size(), 16u);
}

TEST(ServerWorkerTest, AWorkerWithAnotherKeyTrainsNothingAndTheCustomerLearnsNoDetail) {
  World world;
  {
    const auto maker = world.StartWorker("maker", 'k');
    world.TrainVector();
  }
  const auto stranger = world.StartWorker("stranger", 'o');
  const FineTuningJob job = world.WaitForState(world.CreateJob().name(), FineTuningJob::FAILED);
  EXPECT_EQ(stranger->engine().seen().trainings, 0);
  EXPECT_EQ(job.error().kind(), v1::JobError::PLATFORM);
  EXPECT_THAT(job.delta(), IsEmpty());
  std::string told = job.DebugString();
  for (const v1::JobEvent& event : world.Events(job.name())) told += event.DebugString();
  for (const char* word : {"VAULT", "vault", "cipher", "wrong key", "KEY_WRONG", "seal", "vec-"}) {
    EXPECT_THAT(told, Not(HasSubstr(word)));
  }
}

TEST(ServerWorkerTest, ACorruptCiphertextTrainsNothing) {
  World world;
  const auto worker = world.StartWorker("w1");
  world.TrainVector();
  world.CorruptSealedVectors();
  const FineTuningJob job = world.WaitForState(world.CreateJob().name(), FineTuningJob::FAILED);
  EXPECT_EQ(worker->engine().seen().trainings, 0);
  EXPECT_EQ(job.error().kind(), v1::JobError::PLATFORM);
  EXPECT_THAT(job.error().message(), Not(HasSubstr("vector")));
}

TEST(ServerWorkerTest, ARetiredVectorEndsItsRunningJobAndServesNoOther) {
  World world;
  const auto worker = world.StartWorker("w1");
  const admin::v1::Vector vector = world.TrainVector();
  worker->engine().HoldAt(2);
  const std::string running = world.CreateJob().name();
  worker->engine().WaitForStep(2);
  const std::string waiting = world.CreateJob().name();
  world.RetireVector(vector.name());
  worker->engine().Release();
  world.WaitForState(running, FineTuningJob::SUCCEEDED);
  // The waiting one says why it waits, and is not trained without a vector.
  bool told = false;
  world.WaitFor(waiting, [&](const FineTuningJob&) {
    for (const v1::JobEvent& event : world.Events(waiting)) {
      told = told || event.message().find("waits") != std::string::npos;
    }
    return told;
  });
  EXPECT_EQ(world.GetJob(waiting).state(), FineTuningJob::QUEUED);
  EXPECT_EQ(worker->engine().seen().trainings, 1);
  world.TrainVector();
  world.WaitForState(waiting, FineTuningJob::SUCCEEDED);
}

TEST(ServerWorkerTest, SamplesAreAnsweredWhenIdleWhileTrainingAndWithADelta) {
  World world;
  const auto worker = world.StartWorker("w1");
  const World::Reply idle = world.Sample("hello there");
  ASSERT_OK(idle.status);
  EXPECT_THAT(idle.text, HasSubstr("hello there"));
  world.TrainVector();
  worker->engine().HoldAt(2);
  const std::string name = world.CreateJob().name();
  worker->engine().WaitForStep(2);
  const World::Reply busy = world.Sample("hello again");
  ASSERT_OK(busy.status);
  EXPECT_THAT(busy.text, HasSubstr("hello again"));
  EXPECT_EQ(worker->engine().seen().samples_while_training, 1);
  worker->engine().Release();
  const FineTuningJob job = world.WaitForState(name, FineTuningJob::SUCCEEDED);
  ASSERT_OK(world.Sample("and now", job.delta()).status);
  EXPECT_EQ(worker->engine().seen().sample_adapter_tensors, 28u);
}

TEST(ServerWorkerTest, AJobThatDivergesFailsWithWhatToDoAndIsNotRetried) {
  World world;
  const auto worker = world.StartWorker("w1");
  world.TrainVector();
  worker->engine().FailNext(
      MakeError(absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE", "the loss was 17.25"), 4);
  const FineTuningJob job = world.WaitForState(world.CreateJob().name(), FineTuningJob::FAILED);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(job.error().kind(), v1::JobError::USER);
  EXPECT_EQ(job.error().reason(), "LOSS_NOT_FINITE");
  EXPECT_THAT(job.error().message(), HasSubstr("Lower the learning rate"));
  EXPECT_THAT(job.error().message(), Not(HasSubstr("17.25")));
}

}  // namespace
}  // namespace ballast::testing
