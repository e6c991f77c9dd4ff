// SPDX-License-Identifier: Apache-2.0
// The agent against a server that does what the test says, with an engine without tensors and the
// real vault.
#include "worker/agent/agent.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/adapter_folder.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "spdlog/sinks/ostream_sink.h"
#include "worker/testing/fake_engine.h"
#include "worker/testing/fake_text.h"
#include "worker/testing/fake_worker_service.h"
#include "worker/vault/envelope_vault.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::FakeClock;
using ballast::v1::JobError;
using ballast::worker::testing::FakeEngineControl;
using ballast::worker::testing::FakeWorkerService;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kJob[] = "tenants/acme/fineTuningJobs/job-1";
constexpr char kConfig[] =
    R"({"num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2})";
constexpr char kClearVector[] = "the clear bytes of the vector, which nobody may see";

vault::EnvelopeVault MakeVault(char key) {
  return vault::EnvelopeVault(
      std::make_unique<vault::FileKeyProvider>(SecretBuffer::CopyOf(std::string(32, key))));
}

// Rows in the form that the fake text understands.
std::string Rows(int count, const std::string& reply = "yes") {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&rows, R"({"messages": [{"role": "user", "content": "question )", i,
                    R"("}, {"role": "assistant", "content": ")", reply, " ", i, "\"}]}\n");
  }
  return rows;
}

class AgentTest : public ::testing::Test {
 protected:
  AgentTest()
      : cache_dir_(absl::StrCat(::testing::TempDir(), "/agent_", RandomHex(64))),
        vault_(MakeVault('k')) {
    previous_log_ = spdlog::default_logger();
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_)));
    server_.SetBlob("blob-config", kConfig);
    server_.SetBlob("blob-weights", std::string(5000, 'w'));
  }
  ~AgentTest() override {
    StopAgent();
    spdlog::set_default_logger(previous_log_);
    std::filesystem::remove_all(cache_dir_);
  }

  void StartAgent(int checkpoint_steps = 0) {
    WorkerClientOptions client;
    client.server_address = server_.address();
    client.api_key = FakeWorkerService::kApiKey;
    client.worker_id = "worker-1";
    client.first_backoff = absl::Milliseconds(5);
    client.longest_backoff = absl::Milliseconds(20);
    auto made = WorkerClient::Create(client);
    ASSERT_OK(made);
    client_ = *std::move(made);
    AgentOptions options;
    options.version = "1.2.3";
    options.cache_dir = cache_dir_;
    options.metrics_address = metrics_address_;
    options.checkpoint_steps = checkpoint_steps;
    options.stop_patience = absl::Milliseconds(200);
    options.first_pause = absl::Milliseconds(1);
    options.longest_pause = absl::Milliseconds(2);
    agent_ = std::make_unique<Agent>(
        options, *client_, vault_,
        [this](const std::string& folder) { return testing::LoadFakeEngine(folder, engine_); },
        [](const std::string&) -> absl::StatusOr<text::ModelText> {
          return testing::FakeModelText();
        },
        clock_);
    ASSERT_OK(agent_->Start());
  }

  void StopAgent() {
    agent_.reset();
    client_.reset();
  }

  pb::BaseModelFiles Base(const std::string& extra = "") {
    pb::BaseModelFiles base;
    base.set_name("baseModels/tiny");
    Sha256 digest;
    const auto add = [&](const std::string& name, const std::string& blob,
                         const std::string& bytes) {
      auto* file = base.add_files();
      file->set_file_name(name);
      file->set_blob(blob);
      file->set_size_bytes(static_cast<int64_t>(bytes.size()));
      file->set_digest(DigestOf(bytes));
      digest.Update(absl::StrCat(name, " ", file->digest(), "\n"));
    };
    add("config.json", "blob-config", kConfig);
    if (!extra.empty()) {
      server_.SetBlob("blob-extra", extra);
      add("extra.txt", "blob-extra", extra);
    }
    add("model.safetensors", "blob-weights", std::string(5000, 'w'));
    base.set_digest(digest.Finish());
    return base;
  }

  void SetDataset(pb::DatasetBlob* dataset, const std::string& name, const std::string& rows) {
    server_.SetBlob(name, rows);
    dataset->set_blob(name);
    dataset->set_digest(DigestOf(rows));
    dataset->set_size_bytes(static_cast<int64_t>(rows.size()));
  }

  // A job of 8 rows, 2 passes, 4 rows a step: 4 steps.
  pb::Work Job(int64_t epoch = 1) {
    pb::Work work;
    work.mutable_lease()->set_resource(kJob);
    work.mutable_lease()->set_epoch(epoch);
    *work.mutable_base_model() = Base();
    auto* task = work.mutable_fine_tune();
    auto* job = task->mutable_job();
    job->set_name(kJob);
    job->set_attempt(static_cast<int32_t>(epoch));
    auto* hyperparameters = job->mutable_hyperparameters();
    hyperparameters->set_learning_rate(3e-4);
    hyperparameters->set_epochs(2);
    hyperparameters->set_batch_rows(4);
    hyperparameters->set_lora_rank(2);
    hyperparameters->set_lora_alpha(4);
    hyperparameters->set_warmup_ratio(0.1);
    hyperparameters->set_schedule(ballast::v1::Hyperparameters::LINEAR);
    hyperparameters->set_seed(77);
    SetDataset(task->mutable_training_dataset(), "blob-rows", Rows(8));
    task->set_training_dataset_digest(task->training_dataset().digest());
    task->set_vector_always(true);
    task->set_protection_handle("handle-1");
    SetVector(task, {"vec-1", 2, work.base_model().digest()});
    return work;
  }

  void SetVector(pb::Work::FineTune* task, const VectorBinding& binding) {
    const auto sealed = vault_.Seal(SecretBuffer::CopyOf(kClearVector), binding);
    ASSERT_OK(sealed);
    server_.SetBlob("blob-vector", *sealed);
    auto* vector = task->mutable_vector();
    vector->set_blob("blob-vector");
    vector->set_ciphertext_digest(DigestOf(*sealed));
    vector->set_vector_id(binding.vector_id);
    vector->set_version(binding.version);
    vector->set_base_digest(binding.base_digest);
  }

  pb::Work VectorWork() {
    pb::Work work;
    work.mutable_lease()->set_resource("vectors/vec-9");
    work.mutable_lease()->set_epoch(4);
    *work.mutable_base_model() = Base();
    auto* task = work.mutable_train_vector();
    server_.SetBlob("blob-prohibited", Rows(10, "agreed"));
    server_.SetBlob("blob-benign", Rows(6, "fine"));
    task->set_prohibited_blob("blob-prohibited");
    task->set_benign_blob("blob-benign");
    task->set_vector_id("vec-9");
    task->set_version(3);
    task->set_learning_rate(2e-3);
    task->set_epochs(2);
    task->set_lora_rank(4);
    task->set_kl_weight(1.5);
    return work;
  }

  pb::SampleOrder Order(const std::string& id, const std::string& text) {
    pb::SampleOrder order;
    order.set_sample_id(id);
    *order.mutable_base_model() = Base();
    auto* message = order.mutable_request()->add_messages();
    message->set_role("user");
    message->set_content(text);
    return order;
  }

  // The job fails without having trained, and its owner learns nothing of the protection.
  void ExpectProtectionUnavailable(const pb::SynchronizeRequest::Finished& finished) {
    ASSERT_TRUE(finished.has_error());
    EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
    EXPECT_EQ(finished.error().reason(), "PROTECTION_UNAVAILABLE");
    for (const char* word : {"vector", "vault", "key", "cipher", "seal", "vec-"}) {
      EXPECT_THAT(finished.error().message(), Not(HasSubstr(word)));
    }
    EXPECT_EQ(engine_.seen().trainings, 0);
    EXPECT_THAT(server_.written(), IsEmpty());
  }

  std::ostringstream log_;
  std::shared_ptr<spdlog::logger> previous_log_;
  std::string metrics_address_;
  const std::string cache_dir_;
  FakeWorkerService server_;
  FakeEngineControl engine_;
  vault::EnvelopeVault vault_;
  FakeClock clock_;
  std::unique_ptr<WorkerClient> client_;
  std::unique_ptr<Agent> agent_;
};

TEST_F(AgentTest, TrainsAJobUnderItsVectorAndWritesTheDelta) {
  pb::Work work = Job();
  SetDataset(work.mutable_fine_tune()->mutable_validation_dataset(), "blob-validation", Rows(3));
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_EQ(finished.lease().resource(), kJob);
  EXPECT_EQ(finished.lease().epoch(), 1);

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

TEST_F(AgentTest, ReportsNothingButStepsTokensAndEvaluations) {
  engine_.HoldAt(2);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(2);
  engine_.WaitForYields(30);
  engine_.Release();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  bool saw_step_two = false;
  for (const auto& beat : server_.heartbeats()) {
    saw_step_two = saw_step_two || (beat.step() == 2 && beat.evaluations_size() == 2);
    EXPECT_EQ(beat.lease().epoch(), 1);
  }
  EXPECT_TRUE(saw_step_two);
}

TEST_F(AgentTest, LeavesNoTraceOfVectorKeyOrRowsInLogAndFiles) {
  engine_.HoldAt(2);
  server_.GiveWork(Job());
  server_.GiveWork(VectorWork());
  StartAgent(/*checkpoint_steps=*/1);
  server_.WaitForWritten("checkpoint");
  engine_.Release();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  ASSERT_TRUE(server_.WaitForFinished().has_vector());
  StopAgent();
  std::string everything = log_.str();
  ASSERT_THAT(everything, HasSubstr(kJob));
  EXPECT_THAT(everything, Not(HasSubstr("question")));
  EXPECT_THAT(everything, Not(HasSubstr(FakeWorkerService::kApiKey)));
  for (const auto& [name, bytes] : server_.written()) everything += bytes;
  for (const std::string& secret :
       {std::string(kClearVector), engine_.seen().trained_vector, std::string(32, 'k')}) {
    ASSERT_GE(secret.size(), 16u);
    for (size_t at = 0; at + 16 <= secret.size(); at += 8) {
      const std::string piece = secret.substr(at, 16);
      EXPECT_THAT(everything, Not(HasSubstr(piece)));
      EXPECT_THAT(everything, Not(HasSubstr(absl::BytesToHexString(piece))));
    }
  }
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

TEST_F(AgentTest, DoesNotTrainWithoutAVector) {
  pb::Work work = Job();
  work.mutable_fine_tune()->clear_vector();
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(AgentTest, DoesNotTrainWhenTheKeyIsAnother) {
  pb::Work work = Job();
  vault::EnvelopeVault other = MakeVault('o');
  ASSERT_OK_AND_ASSIGN(
      const std::string sealed,
      other.Seal(SecretBuffer::CopyOf(kClearVector), {"vec-1", 2, work.base_model().digest()}));
  server_.SetBlob("blob-vector", sealed);
  work.mutable_fine_tune()->mutable_vector()->set_ciphertext_digest(DigestOf(sealed));
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_THAT(log_.str(), HasSubstr("VAULT_KEY_WRONG"));
}

TEST_F(AgentTest, DoesNotTrainWhenTheCiphertextWasChanged) {
  server_.GiveWork(Job());
  const pb::Work work = Job();
  ASSERT_OK_AND_ASSIGN(std::string sealed, vault_.Seal(SecretBuffer::CopyOf(kClearVector),
                                                       {"vec-1", 2, work.base_model().digest()}));
  server_.SetBlob("blob-vector", sealed);  // not what the digest says
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(AgentTest, DoesNotTrainWhenTheCiphertextIsDamagedAndItsDigestFits) {
  pb::Work work = Job();
  ASSERT_OK_AND_ASSIGN(std::string sealed, vault_.Seal(SecretBuffer::CopyOf(kClearVector),
                                                       {"vec-1", 2, work.base_model().digest()}));
  sealed[sealed.size() / 2] ^= 1;
  server_.SetBlob("blob-vector", sealed);
  work.mutable_fine_tune()->mutable_vector()->set_ciphertext_digest(DigestOf(sealed));
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_THAT(log_.str(), HasSubstr("VECTOR_CORRUPT"));
}

TEST_F(AgentTest, DoesNotTrainWithAnotherBasesVector) {
  pb::Work work = Job();
  SetVector(work.mutable_fine_tune(), {"vec-1", 2, DigestOf("another base")});
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  // The same vector under a lie about its base does not open.
  work.mutable_fine_tune()->mutable_vector()->set_base_digest(work.base_model().digest());
  server_.GiveWork(work);
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(AgentTest, DoesNotTrainWithAnotherVersionsCiphertext) {
  pb::Work work = Job();
  work.mutable_fine_tune()->mutable_vector()->set_version(3);
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
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

TEST_F(AgentTest, TellsTheOwnerThatTrainingDivergedAndNoNumber) {
  engine_.FailNext(MakeError(absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE",
                             "loss was 123.456 before it became nan"),
                   2);
  server_.GiveWork(Job());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::USER);
  EXPECT_EQ(finished.error().reason(), "LOSS_NOT_FINITE");
  EXPECT_THAT(finished.error().message(), HasSubstr("Lower the learning rate"));
  EXPECT_THAT(finished.error().message(), Not(HasSubstr("123.456")));
  EXPECT_THAT(log_.str(), Not(HasSubstr("123.456")));
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, WritesNothingWhenTheEngineReturnsAForeignTensor) {
  engine_.AddTensorToResults("base_model.model.model.layers.0.self_attn.q_proj.vector.weight");
  server_.GiveWork(Job());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_THAT(server_.written(), IsEmpty());
  EXPECT_THAT(log_.str(), HasSubstr("ARTIFACT_TENSOR_NOT_ALLOWED"));
}

TEST_F(AgentTest, RefusesADataSetThatIsNotTheUploadedOne) {
  server_.GiveWork(Job());
  server_.SetBlob("blob-rows", Rows(9));
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_EQ(engine_.seen().trainings, 0);
  EXPECT_THAT(log_.str(), HasSubstr("DATASET_CORRUPT"));
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

TEST_F(AgentTest, TrainsAVectorAndSealsIt) {
  server_.GiveWork(VectorWork());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_vector()) << finished.DebugString();
  const std::string sealed = server_.written().at("vector");
  EXPECT_EQ(finished.vector().ciphertext_digest(), DigestOf(sealed));
  EXPECT_EQ(finished.vector().prohibited_loss_with(), 0.25);
  EXPECT_EQ(finished.vector().benign_loss_without(), 1.25);
  EXPECT_EQ(finished.final_state().evaluations_size(), 0);
  ASSERT_OK_AND_ASSIGN(const SecretBuffer opened,
                       vault_.Unseal(sealed, {"vec-9", 3, Base().digest()}));
  EXPECT_EQ(opened.view(), engine_.seen().trained_vector);
  const auto config = engine_.seen().vector_config;
  EXPECT_EQ(config.learning_rate, 2e-3);
  EXPECT_EQ(config.epochs, 2);
  EXPECT_EQ(config.lora.rank, 4);
  EXPECT_EQ(config.lora.alpha, 8);
  EXPECT_EQ(config.kl_weight, 1.5);
}

TEST_F(AgentTest, CancelsTheTrainingOfAVector) {
  engine_.HoldAt(1);
  server_.GiveWork(VectorWork());
  StartAgent();
  engine_.WaitForStep(1);
  server_.OrderStop(false);
  EXPECT_TRUE(server_.WaitForFinished().has_cancelled());
  EXPECT_THAT(server_.written(), IsEmpty());
}

TEST_F(AgentTest, AnswersSamplesWhenIdle) {
  server_.GiveSample(Order("s-1", "h\xc3\xa9llo \xf0\x9f\x9a\xa2"));
  StartAgent();
  const auto reply = server_.WaitForReply("s-1");
  EXPECT_EQ(reply.finish_reason, "stop");
  EXPECT_EQ(reply.text(), "user: h\xc3\xa9llo \xf0\x9f\x9a\xa2\nassistant: ");
  EXPECT_THAT(reply.pieces, Contains("\xc3\xa9"));
  EXPECT_THAT(reply.pieces, Contains("\xf0\x9f\x9a\xa2"));
  EXPECT_EQ(engine_.seen().samples_while_training, 0);
}

TEST_F(AgentTest, AnswersSamplesWithADelta) {
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  server_.SetBlob("blob-adapter", server_.written().at("delta/adapter/adapter_model.safetensors"));
  pb::SampleOrder order = Order("s-2", "hello");
  order.set_adapter_blob("blob-adapter");
  order.set_lora_rank(2);
  order.set_lora_alpha(4);
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-2").finish_reason, "stop");
  EXPECT_EQ(engine_.seen().sample_adapter_tensors, 14u);
  order.set_sample_id("s-3");
  order.set_lora_rank(3);  // not the adapter's
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-3").error.reason(), "SAMPLE_FAILED");
}

TEST_F(AgentTest, AnswersSamplesBetweenMicroBatches) {
  engine_.HoldAt(1);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(1);
  server_.GiveSample(Order("s-4", "hello"));
  EXPECT_EQ(server_.WaitForReply("s-4").text(), "user: hello\nassistant: ");
  EXPECT_EQ(engine_.seen().samples_while_training, 1);
  pb::SampleOrder other = Order("s-5", "hello");
  *other.mutable_base_model() = Base("another model");
  server_.GiveSample(other);
  EXPECT_EQ(server_.WaitForReply("s-5").error.reason(), "SAMPLE_BASE_BUSY");
  engine_.Release();
  EXPECT_TRUE(server_.WaitForFinished().has_delta());
}

TEST_F(AgentTest, SaysWhenAPromptIsTooLongAndWhenAReplyWasCut) {
  pb::SampleOrder order = Order("s-6", std::string(5000, 'a'));
  server_.GiveSample(order);
  StartAgent();
  const auto reply = server_.WaitForReply("s-6");
  EXPECT_EQ(reply.error.kind(), JobError::USER);
  EXPECT_EQ(reply.error.reason(), "PROMPT_TOO_LONG");
  order = Order("s-7", "hello");
  order.mutable_request()->set_max_tokens(3);
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-7").text(), "use");
  EXPECT_EQ(server_.WaitForReply("s-7").finish_reason, "length");
}

// The metrics page of a worker on loopback.
std::string ReadMetrics(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string page;
  char buffer[4096];
  for (ssize_t n = 0; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    page.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return page;
}

TEST_F(AgentTest, CountsWhatItDoesWithoutNamesAndLosses) {
  metrics_address_ = "127.0.0.1:0";
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  server_.GiveSample(Order("s-8", "hello"));
  server_.WaitForReply("s-8");
  server_.WaitForIdle(1);
  const std::string page = ReadMetrics(agent_->metrics().port());
  EXPECT_THAT(page, HasSubstr(R"(ballast_worker_leases_total{outcome="done",work="fine_tune"} 1)"));
  EXPECT_THAT(page, HasSubstr("ballast_worker_steps_total 4"));
  EXPECT_THAT(page, HasSubstr(R"(ballast_worker_samples_total{answered="yes"} 1)"));
  EXPECT_THAT(page, HasSubstr("ballast_worker_busy 0"));
  EXPECT_THAT(page, Not(HasSubstr("acme")));
  EXPECT_THAT(page, Not(HasSubstr("loss")));
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
