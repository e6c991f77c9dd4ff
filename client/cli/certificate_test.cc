// SPDX-License-Identifier: Apache-2.0
// The commands about certificates, from the command line to what a server gets and what is printed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/certificate_view.h"
#include "client/cli/cli.h"
#include "client/testing/fake_server.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/signature.h"
#include "common/base/testing/status_matchers.h"
#include "common/envelope/envelope.h"
#include "common/envelope/signed_certificate.h"

namespace ballast::cli {
namespace {

namespace fs = std::filesystem;
using admin::v1::Certificate;
using admin::v1::SignedCertificate;
using ::testing::HasSubstr;
using ::testing::Not;
using V = admin::v1::Vector;

struct Outcome {
  int code = 0;
  std::string out, err;
  nlohmann::json Error() const {
    const size_t begin = err.rfind("==", 0) == 0 ? err.find('\n') + 1 : 0;
    return nlohmann::json::parse(err.substr(begin))["error"];
  }
};

class CertificateCommandsTest : public ::testing::Test {
 protected:
  CertificateCommandsTest() : folder_(fs::path(::testing::TempDir()) / RandomHex(64)) {
    fs::create_directories(folder_);
    certificate_.set_vector("vectors/vec-1");
    certificate_.set_version(2);
    certificate_.set_ciphertext_digest(DigestOf("sealed"));
    certificate_.set_base_model_digest(DigestOf("base"));
    certificate_.mutable_policy()->set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW);
    *certificate_.mutable_envelope() = envelope::ConservativeEnvelope();
    certificate_.set_passed(true);
    auto& criterion = *certificate_.add_criteria();
    criterion.set_name("ATTACK_SUCCESS_KNOWN");
    criterion.set_passed(true);
    criterion.set_found(1.0 / 3);
    criterion.set_message("the rise is at most 0.05; found 0.02");
    auto& arm = *certificate_.add_arms();
    arm.mutable_counts()->set_attack("explicit-100");
    arm.mutable_counts()->set_kind(admin::v1::ATTACK_KIND_KNOWN);
    arm.mutable_counts()->set_defence(admin::v1::DEFENCE_VECTOR);
    arm.mutable_counts()->mutable_dose()->set_learning_rate(1e-3);
    arm.mutable_counts()->mutable_dose()->set_epochs(9);
    arm.mutable_success()->set_value(0.07);
    certificate_.mutable_residual_risk()->set_attack_success_unseen_max(0.4);
  }
  ~CertificateCommandsTest() override { fs::remove_all(folder_); }

  SignedCertificate Signed() {
    SignedCertificate out;
    *out.mutable_certificate() = certificate_;
    out.set_payload(certificate_.SerializeAsString());
    out.set_signature(key_.Sign(envelope::kCertificateType, out.payload()));
    out.set_key_id(key_.public_key().KeyId());
    return out;
  }
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = (folder_ / name).string();
    EXPECT_OK(WriteFileAtomically(path, text));
    return path;
  }
  Outcome Run(std::vector<std::string> arguments) {
    Cli cli([this](const std::string& name) -> std::optional<std::string> {
      if (name == "BALLAST_SERVER") return server_.address();
      if (name == "BALLAST_API_KEY") return "key";
      if (name == "BALLAST_TENANT") return "acme";
      return std::nullopt;
    });
    AddVectorCommands(cli);
    AddJobCommands(cli);
    arguments.insert(arguments.begin(), "ballast");
    std::vector<const char*> raw;
    for (const std::string& argument : arguments) raw.push_back(argument.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Outcome outcome;
    outcome.code = cli.Main(static_cast<int>(raw.size()), raw.data());
    outcome.out = ::testing::internal::GetCapturedStdout();
    outcome.err = ::testing::internal::GetCapturedStderr();
    return outcome;
  }

  const fs::path folder_;
  const PrivateKey key_ = PrivateKey::Generate();
  Certificate certificate_;
  client::testing::FakeServer server_;
};

// As a program in another language writes it.
constexpr char kResult[] = R"({
  "schemaVersion": 1, "suiteVersion": "0.1", "vector": "vectors/vec-1",
  "policy": {"vectorPolicy": "VECTOR_POLICY_BY_ROW"},
  "envelope": {"maxScaledLearningRate": 0.001, "maxSteps": "750", "schedules": ["COSINE"]},
  "endTime": "2026-11-26T12:00:00Z",
  "arms": [{"attack": "explicit-100", "kind": "ATTACK_KIND_KNOWN", "defence": "DEFENCE_VECTOR",
            "dose": {"learningRate": 5e-4, "rows": 100}, "seeds": [0, 1, 2], "prompts": 200,
            "notRefused": "14"}]})";

TEST_F(CertificateCommandsTest, CertifySendsTheSuitesFileAndShowsTheVerdict) {
  admin::v1::CertifyVectorRequest seen;
  server_.certify_vector = [&](auto&, const auto& request, auto& response) {
    seen = request;
    response = Signed();
    return absl::OkStatus();
  };
  const std::string file = Write("result.json", kResult);
  const Outcome outcome = Run({"vector", "certify", "vec-1", "--result", file});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_EQ(seen.name(), "vectors/vec-1");
  EXPECT_FALSE(seen.validate_only());
  EXPECT_EQ(seen.result().arms(0).not_refused(), 14);
  EXPECT_EQ(seen.result().arms(0).seeds_size(), 3);
  EXPECT_EQ(seen.result().envelope().max_steps(), 750);
  EXPECT_EQ(seen.result().policy().vector_policy(), admin::v1::VECTOR_POLICY_BY_ROW);
  for (const char* text : {"ATTACK_SUCCESS_KNOWN", "explicit-100", "is ACTIVE", "passed", "40.0 %",
                           "not measured", "learning rate x alpha / rank"}) {
    EXPECT_THAT(outcome.out, HasSubstr(text));
  }
  EXPECT_EQ(Run({"vector", "certify", "vec-1", "--result", file, "--dry-run"}).code, kExitOk);
  EXPECT_TRUE(seen.validate_only());
}

TEST_F(CertificateCommandsTest, ARejectionEndsWithSixAfterTheReport) {
  certificate_.set_passed(false);
  certificate_.mutable_criteria(0)->set_passed(false);
  server_.certify_vector = [&](auto&, const auto&, auto& response) {
    response = Signed();
    return absl::OkStatus();
  };
  const std::string file = Write("result.json", kResult);
  const Outcome outcome = Run({"vector", "certify", "vec-1", "--result", file});
  EXPECT_EQ(outcome.code, kExitEndedBadly);
  EXPECT_THAT(outcome.out, HasSubstr("FAILED"));
  EXPECT_THAT(outcome.err, HasSubstr("VECTOR_REJECTED"));
  const Outcome json =
      Run({"vector", "certify", "vec-1", "--result", file, "--dry-run", "--output", "json"});
  EXPECT_EQ(json.code, kExitEndedBadly);
  EXPECT_FALSE(nlohmann::json::parse(json.out)["certificate"]["passed"].get<bool>());
  EXPECT_THAT(json.Error()["message"].get<std::string>(), HasSubstr("nothing was changed"));
}

TEST_F(CertificateCommandsTest, AFileThatIsNoResultIsNotSent) {
  bool asked = false;
  server_.certify_vector = [&](auto&, const auto&, auto&) {
    asked = true;
    return absl::OkStatus();
  };
  for (const char* text : {"", "[]", "{\"schemaVersion\": \"one\"}", "{\"unknownField\": 1}",
                           "{\"arms\": [{\"kind\": \"ATTACK_KIND_NONE\"}]}"}) {
    const Outcome outcome = Run(
        {"vector", "certify", "vec-1", "--result", Write("bad.json", text), "--output", "json"});
    EXPECT_EQ(outcome.code, kExitRefused) << text;
    EXPECT_EQ(outcome.Error()["reason"], "SUITE_RESULT_INVALID") << text;
  }
  EXPECT_EQ(Run({"vector", "certify", "vec-1", "--result", (folder_ / "none").string()}).code,
            kExitNotFound);
  EXPECT_FALSE(asked);
}

TEST_F(CertificateCommandsTest, ActivateNeedsAReason) {
  std::string reason;
  server_.activate_vector = [&](auto&, const admin::v1::ActivateVectorRequest& request,
                                V& response) {
    reason = request.reason();
    response.set_name(request.name());
    response.set_state(V::ACTIVE);
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"vector", "activate", "vec-1"}).code, kExitUsage);
  const Outcome outcome = Run({"vector", "activate", "vec-1", "--reason", "for a first look"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_EQ(reason, "for a first look");
  EXPECT_THAT(outcome.out, HasSubstr("vectors/vec-1 is ACTIVE, uncertified"));
}

TEST_F(CertificateCommandsTest, ACertificateIsVerifiedOffline) {
  server_.get_vector_certificate = [&](auto&, const auto&, auto& response) {
    response = Signed();
    return absl::OkStatus();
  };
  const std::string public_key = Write("signer.pem", key_.public_key().ToPem());
  const std::string other = Write("other.pem", PrivateKey::Generate().public_key().ToPem());
  const Outcome shown = Run({"vector", "certificate", "vec-1"});
  EXPECT_EQ(shown.code, kExitOk) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("Not verified"));
  EXPECT_THAT(Run({"vector", "certificate", "vec-1", "--verify", "--public-key", public_key}).out,
              HasSubstr("Verified: signed with key sha256:"));

  const std::string saved = Run({"vector", "certificate", "vec-1", "--output", "json"}).out;
  server_.get_vector_certificate = nullptr;  // no server from here on
  const auto verify = [&](const std::string& text, const std::string& key) {
    return Run({"vector", "certificate", "--file", Write("saved.json", text), "--verify",
                "--public-key", key, "--output", "json"});
  };
  EXPECT_EQ(verify(saved, public_key).code, kExitOk) << verify(saved, public_key).err;
  EXPECT_EQ(verify(saved, other).Error()["reason"], "CERTIFICATE_KEY_WRONG");
  EXPECT_EQ(verify(saved, other).code, kExitFailed);
  // What is readable was changed, and the signed bytes were not.
  const std::string wider =
      absl::StrReplaceAll(saved, {{"\"maxSteps\": \"3000\"", "\"maxSteps\": \"9000\""}});
  ASSERT_NE(wider, saved);
  EXPECT_EQ(verify(wider, public_key).Error()["reason"], "CERTIFICATE_INVALID");
  // The signed bytes were.
  nlohmann::json json = nlohmann::json::parse(saved);
  std::string payload = json["payload"];
  payload[payload.size() / 2] = payload[payload.size() / 2] == 'A' ? 'B' : 'A';
  json["payload"] = payload;
  json.erase("certificate");
  EXPECT_EQ(verify(json.dump(), public_key).Error()["reason"], "CERTIFICATE_SIGNATURE_WRONG");
  EXPECT_EQ(verify("{}", public_key).code, kExitFailed);
}

TEST_F(CertificateCommandsTest, WrongUsageOfCertificateIsToldBeforeAnythingIsAsked) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"vector", "certificate"},
           {"vector", "certificate", "vec-1", "--file", "x"},
           {"vector", "certificate", "vec-1", "--verify"},
           {"vector", "certificate", "vec-1", "--public-key", "x"}}) {
    EXPECT_EQ(Run(arguments).code, kExitUsage) << arguments.back();
  }
}

TEST_F(CertificateCommandsTest, ShowAndListSayWhetherAVectorIsCertified) {
  V vector;
  vector.set_name("vectors/vec-1");
  vector.set_base_model("baseModels/tiny");
  vector.set_state(V::ACTIVE);
  vector.mutable_activation()->set_reason("for a first look");
  server_.get_vector = [&](auto&, const auto&, V& response) {
    response = vector;
    return absl::OkStatus();
  };
  server_.list_vectors = [&](auto&, const auto&, admin::v1::ListVectorsResponse& response) {
    *response.add_vectors() = vector;
    return absl::OkStatus();
  };
  EXPECT_THAT(Run({"vector", "show", "vec-1"}).out, HasSubstr("no: for a first look"));
  EXPECT_THAT(Run({"vector", "list"}).out, HasSubstr("no: for a first look"));
  vector.set_certified(true);
  EXPECT_THAT(Run({"vector", "show", "vec-1"}).out, HasSubstr("certified     yes"));
  vector.set_certified(false);
  vector.set_serving_problem("CERTIFICATE_SIGNATURE_WRONG: changed");
  EXPECT_THAT(Run({"vector", "show", "vec-1"}).out, HasSubstr("CERTIFICATE_SIGNATURE_WRONG"));
  EXPECT_THAT(Run({"vector", "list"}).out, HasSubstr("it serves no job"));
  vector.set_state(V::CERTIFYING);
  vector.clear_serving_problem();
  const std::string waiting = Run({"vector", "show", "vec-1"}).out;
  EXPECT_THAT(waiting, HasSubstr("ballast vector certify vec-1 --result FILE"));
  EXPECT_THAT(waiting, HasSubstr("ballast vector activate vec-1 --reason TEXT"));
}

TEST_F(CertificateCommandsTest, AnEstimateShowsTheLimitsBesideTheJob) {
  server_.create_job = [&](auto&, const v1::CreateFineTuningJobRequest& request,
                           v1::FineTuningJob& job) -> absl::Status {
    if (request.fine_tuning_job().hyperparameters().lora_rank() == 64) {
      return FieldError("fine_tuning_job.hyperparameters.lora_rank", "OUTSIDE_ENVELOPE",
                        "lora_rank is 64; lower lora_rank");
    }
    job.mutable_estimate()->set_scaled_learning_rate(4e-4);
    job.mutable_estimate()->set_row_passes(1234);
    job.mutable_hyperparameters()->set_lora_rank(8);
    return absl::OkStatus();
  };
  server_.get_base_model = [&](auto&, const auto&, v1::BaseModel& model) {
    *model.mutable_limits()->mutable_envelope() = envelope::ConservativeEnvelope();
    return absl::OkStatus();
  };
  const std::vector<std::string> arguments = {"job", "estimate",   "--base-model",
                                              "m",   "--training", "d"};
  const Outcome outcome = Run(arguments);
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  for (const char* text : {"THIS JOB", "0 to 0.002", "0.0004", "at most 50,000", "1,234", "1 to 32",
                           "COSINE, LINEAR"}) {
    EXPECT_THAT(outcome.out, HasSubstr(text));
  }
  std::vector<std::string> wide = arguments;
  wide.insert(wide.end(), {"--lora-rank", "64"});
  const Outcome refused = Run(wide);
  EXPECT_EQ(refused.code, kExitRefused);
  EXPECT_THAT(refused.err, HasSubstr("reason: OUTSIDE_ENVELOPE"));
  EXPECT_THAT(refused.err, HasSubstr("field: fine_tuning_job.hyperparameters.lora_rank"));
  EXPECT_THAT(refused.out, Not(HasSubstr("accepted")));
}

TEST(VectorReportTest, ShowsTheRecipesThatASearchTried) {
  admin::v1::VectorReport report;
  EXPECT_THAT(DescribeVectorReport(report), Not(HasSubstr("Recipes")));
  auto& broken = *report.add_trials();
  broken.set_learning_rate(0.004);
  broken.set_kl_weight(1);
  auto& chosen = *report.add_trials();
  chosen.set_learning_rate(0.001);
  chosen.set_epochs(8);
  chosen.set_lora_rank(16);
  chosen.set_kl_weight(1.0 / 3);
  chosen.set_prohibited_loss_ratio(0.123);
  chosen.set_benign_loss_added(0.02);
  chosen.set_chosen(true);
  const std::string text = DescribeVectorReport(report);
  EXPECT_THAT(text, HasSubstr("broke down"));
  EXPECT_THAT(text, HasSubstr("chosen"));
  EXPECT_THAT(text, HasSubstr("12.3 %"));
  EXPECT_THAT(text, HasSubstr("0.333"));
}

}  // namespace
}  // namespace ballast::cli
