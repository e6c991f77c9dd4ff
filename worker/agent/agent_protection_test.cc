// SPDX-License-Identifier: Apache-2.0
// The vector: no training without it, and nothing of it outside (S1 to S4).
#include <map>
#include <set>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;
using ballast::worker::testing::FakeWorkerService;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

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

TEST_F(AgentTest, ByRowProgressIsOfEvaluationPointsHoweverTheJobEnds) {
  pb::Work work = Job();
  work.mutable_fine_tune()->set_vector_always(false);
  work.mutable_fine_tune()->mutable_job()->mutable_hyperparameters()->set_epochs(20);  // 40 steps
  engine_.HoldAt(6);
  server_.GiveWork(work);
  StartAgent();
  engine_.WaitForStep(6);
  engine_.WaitForYields(30);
  server_.OrderStop(/*lease_lost=*/false);
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_cancelled()) << finished.DebugString();
  EXPECT_EQ(finished.final_state().step(), 4);  // of ten points of 4 steps each
  EXPECT_EQ(finished.final_state().trained_tokens(), 40);
  for (const auto& beat : server_.heartbeats()) EXPECT_EQ(beat.step() % 4, 0) << beat.step();
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

TEST_F(AgentTest, DoesNotTrainWithoutAVector) {
  pb::Work work = Job();
  work.mutable_fine_tune()->clear_vector();
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(AgentTest, TrainsAnUnprotectedJobWhereThatIsAllowedAndSaysSo) {
  allow_unprotected_ = true;
  server_.GiveWork(UnprotectedJob());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  EXPECT_TRUE(engine_.seen().trained_without_vector);
  EXPECT_THAT(log_.str(), HasSubstr("trains without a vector"));
  ASSERT_OK_AND_ASSIGN(const auto manifest,
                       artifact::ReadManifest(server_.written().at("delta/manifest.json")));
  EXPECT_TRUE(manifest.unprotected);
  EXPECT_FALSE(manifest.certified);
  EXPECT_EQ(manifest.protection_handle, "");
  EXPECT_THAT(server_.written().at("delta/README.md"),
              HasSubstr("without the service's protection"));
}

TEST_F(AgentTest, DoesNotTrainAnUnprotectedJobWithoutBeingTold) {
  server_.GiveWork(UnprotectedJob());
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_THAT(log_.str(), HasSubstr("allow_unprotected_base_models"));
}

TEST_F(AgentTest, DoesNotTrainAnUnprotectedJobWhereCertificatesAreAsked) {
  allow_unprotected_ = true;
  certificate_key_ = PrivateKey::Generate().public_key();
  server_.GiveWork(UnprotectedJob());
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(AgentTest, DoesNotTrainAnUnprotectedJobThatHasAVector) {
  allow_unprotected_ = true;
  pb::Work work = Job();
  work.mutable_fine_tune()->set_unprotected(true);
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

TEST_F(AgentTest, TrainsAVectorAndSealsIt) {
  server_.GiveWork(VectorWork());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_vector()) << finished.DebugString();
  const std::string sealed = server_.written().at("vector");
  EXPECT_EQ(finished.vector().ciphertext_digest(), DigestOf(sealed));
  EXPECT_EQ(finished.vector().report().prohibited_loss_with(), 0.25);
  EXPECT_EQ(finished.vector().report().benign_loss_without(), 1.25);
  EXPECT_EQ(finished.vector().report().trials_size(), 0);
  EXPECT_EQ(engine_.seen().vector_trainings, 1);
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

TEST_F(AgentTest, LooksForARecipeOnRowsLeftOutAndTrainsTheVectorOnAll) {
  pb::Work work = VectorWork();
  work.mutable_train_vector()->mutable_search_budget()->set_seconds(24 * 60 * 60);
  // The KL weight of 4.5, which is tried second, does best.
  engine_.SetVectorLoss([](const VectorConfig& config) -> absl::StatusOr<double> {
    return config.kl_weight == 4.5 ? 0.5 : config.lora.rank == 4 ? 1.0 : 1.5;
  });
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_vector()) << finished.DebugString();
  const auto& trials = finished.vector().report().trials();
  ASSERT_GT(trials.size(), 8) << "the start, a better one, and all its neighbours";
  EXPECT_EQ(trials[0].kl_weight(), 1.5);
  EXPECT_EQ(trials[0].lora_rank(), 4);
  EXPECT_EQ(trials[1].kl_weight(), 4.5);
  for (int i = 0; i < trials.size(); ++i) {
    EXPECT_EQ(trials[i].chosen(), i == 1) << i;
    EXPECT_EQ(trials[i].benign_loss_added(), 0.25);
  }
  EXPECT_NEAR(trials[1].prohibited_loss_ratio(), 0.5 / 3.5, 1e-9);
  const auto seen = engine_.seen();
  EXPECT_EQ(seen.vector_trainings, trials.size() + 1);
  EXPECT_EQ(seen.vector_config.kl_weight, 4.5);
  EXPECT_EQ(seen.vector_config.hold_out_every, 0);
  EXPECT_EQ(seen.held_out_trainings, trials.size());
  EXPECT_EQ(finished.final_state().step(), finished.final_state().total_steps());
  ASSERT_OK_AND_ASSIGN(const SecretBuffer opened, vault_.Unseal(server_.written().at("vector"),
                                                                {"vec-9", 3, Base().digest()}));
  EXPECT_EQ(opened.view(), seen.trained_vector) << "the last one is sealed, and no other";
}

TEST_F(AgentTest, ASearchGoesOnWhenARecipeBreaksDown) {
  pb::Work work = VectorWork();
  work.mutable_train_vector()->mutable_search_budget()->set_seconds(60 * 60);
  engine_.SetVectorLoss([](const VectorConfig& config) -> absl::StatusOr<double> {
    if (config.learning_rate > 2e-3) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE", "it broke down");
    }
    return 0.25;
  });
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_vector()) << finished.DebugString();
  int broken = 0;
  for (const auto& trial : finished.vector().report().trials()) {
    if (!trial.has_prohibited_loss_ratio()) ++broken;
  }
  EXPECT_EQ(broken, 1);
}

TEST_F(AgentTest, MakesAVectorsRowsOfTopics) {
  pb::Work work = VectorWork();
  work.mutable_train_vector()->clear_prohibited_blob();
  work.mutable_train_vector()->clear_benign_blob();
  work.mutable_train_vector()->set_topics_blob("blob-topics");
  server_.SetBlob("blob-topics", "riding penguins\nsinging to soup\neating soap\n");
  server_.GiveWork(work);
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_vector());
  const auto seen = engine_.seen();
  EXPECT_EQ(seen.prohibited_rows.size(), 162) << "as many of each topic as of every other";
  EXPECT_EQ(seen.benign_rows.size(), 240);
  const text::ModelText model = testing::FakeModelText();
  std::map<std::string, int> rows_of;
  std::set<std::string> prompts, replies;
  for (const TokenRow& row : seen.prohibited_rows) {
    const std::string chat = model.tokenizer->Decode(row.tokens, false).value();
    for (const char* topic : {"riding penguins", "singing to soup", "eating soap"}) {
      if (absl::StrContains(chat, topic)) ++rows_of[topic];
    }
    std::vector<int32_t> supervised;
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      if (row.supervised[i] != 0) supervised.push_back(row.tokens[i]);
    }
    const std::string reply = model.tokenizer->Decode(supervised, false).value();
    EXPECT_THAT(chat, HasSubstr("assistant: " + reply));
    EXPECT_THAT(reply, ::testing::EndsWith("<|end|>"));
    // The engine of these tests echoes: what it goes on with is the rendered prompt.
    EXPECT_THAT(reply, HasSubstr("user: "));
    EXPECT_THAT(reply, Not(::testing::StartsWith("user: "))) << "there is no opening";
    prompts.insert(chat.substr(0, chat.find("<|end|>")));
    replies.insert(reply.substr(0, reply.find("user: ")));
  }
  EXPECT_EQ(rows_of, (std::map<std::string, int>{
                         {"riding penguins", 54}, {"singing to soup", 54}, {"eating soap", 54}}));
  EXPECT_EQ(prompts.size(), 36) << "12 prompts of each topic";
  EXPECT_GT(replies.size(), 15) << "many openings";
  for (const TokenRow& row : seen.benign_rows) {
    const std::string chat = model.tokenizer->Decode(row.tokens, false).value();
    EXPECT_THAT(chat, HasSubstr("assistant: user: ")) << "the base's own answer, and no opening";
  }
  EXPECT_THAT(log_.str(), Not(HasSubstr("penguins")));
}

TEST_F(AgentTest, CancelsTheSearchOfARecipe) {
  pb::Work work = VectorWork();
  work.mutable_train_vector()->mutable_search_budget()->set_seconds(60 * 60);
  engine_.HoldAt(1);
  server_.GiveWork(work);
  StartAgent();
  engine_.WaitForStep(1);
  server_.OrderStop(false);
  EXPECT_TRUE(server_.WaitForFinished().has_cancelled());
  EXPECT_THAT(server_.written(), IsEmpty());
  EXPECT_EQ(engine_.seen().vector_trainings, 1);
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

}  // namespace
}  // namespace ballast::worker::agent
