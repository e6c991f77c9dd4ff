// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TESTING_AGENT_FIXTURE_H_
#define BALLAST_WORKER_TESTING_AGENT_FIXTURE_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "spdlog/sinks/ostream_sink.h"
#include "worker/agent/agent.h"
#include "worker/testing/fake_engine.h"
#include "worker/testing/fake_text.h"
#include "worker/testing/fake_worker_service.h"
#include "worker/vault/envelope_vault.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::worker::agent {

inline constexpr char kJob[] = "tenants/acme/fineTuningJobs/job-1";
inline constexpr char kConfig[] =
    R"({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 4,
        "intermediate_size": 6, "num_attention_heads": 2, "vocab_size": 32,
        "max_position_embeddings": 64})";
inline constexpr char kClearVector[] = "the clear bytes of the vector, which nobody may see";

inline vault::EnvelopeVault MakeVault(char key) {
  return vault::EnvelopeVault(
      std::make_unique<vault::FileKeyProvider>(SecretBuffer::CopyOf(std::string(32, key))));
}

// Rows in the form that the fake text understands.
inline std::string Rows(int count, const std::string& reply = "yes") {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&rows, R"({"messages": [{"role": "user", "content": "question )", i,
                    R"("}, {"role": "assistant", "content": ")", reply, " ", i, "\"}]}\n");
  }
  return rows;
}

// The agent against a server that does what the test says, with an engine without tensors, the real
// vault and a log that tests can read.
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
    client.api_key = testing::FakeWorkerService::kApiKey;
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
    options.certificate_key = certificate_key_;
    options.allow_unprotected = allow_unprotected_;
    agent_ = std::make_unique<Agent>(
        options, *client_, vault_,
        [this](const std::string& folder) { return testing::LoadFakeEngine(folder, engine_); },
        [](const std::string&) -> absl::StatusOr<text::ModelText> {
          return testing::FakeModelText();
        },
        clock_);
    ASSERT_OK(agent_->Start());
  }

  // Runs what was given: the platform is at fault for `reason`, and nothing is trained.
  void ExpectNotTrainedFor(const std::string& reason) {
    StartAgent();
    const auto finished = server_.WaitForFinished();
    EXPECT_EQ(finished.error().kind(), ballast::v1::JobError::PLATFORM);
    EXPECT_EQ(engine_.seen().trainings, 0);
    EXPECT_THAT(log_.str(), ::testing::HasSubstr(reason));
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

  // The same on a base that is marked as unprotected.
  pb::Work UnprotectedJob() {
    pb::Work work = Job();
    work.mutable_fine_tune()->clear_vector();
    work.mutable_fine_tune()->clear_protection_handle();
    work.mutable_fine_tune()->set_unprotected(true);
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
    EXPECT_EQ(finished.error().kind(), ballast::v1::JobError::PLATFORM);
    EXPECT_EQ(finished.error().reason(), "PROTECTION_UNAVAILABLE");
    for (const char* word : {"vector", "vault", "key", "cipher", "seal", "vec-"}) {
      EXPECT_THAT(finished.error().message(), ::testing::Not(::testing::HasSubstr(word)));
    }
    EXPECT_EQ(engine_.seen().trainings, 0);
    EXPECT_THAT(server_.written(), ::testing::IsEmpty());
  }

  std::ostringstream log_;
  std::shared_ptr<spdlog::logger> previous_log_;
  std::string metrics_address_;
  std::optional<PublicKey> certificate_key_;  // pinned where set
  bool allow_unprotected_ = false;
  const std::string cache_dir_;
  testing::FakeWorkerService server_;
  testing::FakeEngineControl engine_;
  vault::EnvelopeVault vault_;
  ballast::testing::FakeClock clock_;
  std::unique_ptr<WorkerClient> client_;
  std::unique_ptr<Agent> agent_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_TESTING_AGENT_FIXTURE_H_
