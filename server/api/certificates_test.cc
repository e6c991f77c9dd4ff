// SPDX-License-Identifier: Apache-2.0
// Certificates over gRPC: who may ask for what, what customers see of them, and that a changed
// database slips none in.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "common/envelope/envelope.h"
#include "common/envelope/signed_certificate.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "server/core/records.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using admin::v1::SignedCertificate;
using admin::v1::SuiteResult;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using V = admin::v1::Vector;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class CertificatesTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerFixture::SetUp();
    ASSERT_OK(ImportTiny());
    ASSERT_OK_AND_ASSIGN(vector_, MakeVector());
  }

  SuiteResult Result() {
    return PassingResult(vector_.name(), vector_.ciphertext_digest(), vector_.base_digest(),
                         admin::v1::VECTOR_POLICY_ALWAYS);
  }
  SuiteResult FailingResult() {
    SuiteResult result = Result();
    SetNotRefused(*result.mutable_arms(2), 600);
    return result;
  }
  V Get() {
    admin::v1::GetVectorRequest request;
    request.set_name(vector_.name());
    V vector;
    EXPECT_TRUE(admin_->GetVector(ContextWith(kOperatorKey).get(), request, &vector).ok());
    return vector;
  }
  absl::StatusOr<SignedCertificate> GetCertificate(const std::string& name) {
    admin::v1::GetVectorCertificateRequest request;
    request.set_name(name);
    SignedCertificate certificate;
    const grpc::Status status =
        admin_->GetVectorCertificate(ContextWith(kOperatorKey).get(), request, &certificate);
    if (!status.ok()) return FromGrpcStatus(status);
    return certificate;
  }
  v1::BaseModel Model() {
    v1::GetBaseModelRequest request;
    request.set_name("baseModels/tiny");
    v1::BaseModel model;
    EXPECT_TRUE(models_->GetBaseModel(ContextWith(kTenantKey).get(), request, &model).ok());
    return model;
  }
  absl::Status Create(const v1::Hyperparameters& hyper, const std::string& dataset,
                      bool validate_only) {
    v1::CreateFineTuningJobRequest request;
    request.set_parent("tenants/acme");
    request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
    request.mutable_fine_tuning_job()->set_training_dataset(dataset);
    *request.mutable_fine_tuning_job()->mutable_hyperparameters() = hyper;
    request.set_validate_only(validate_only);
    v1::FineTuningJob job;
    return FromGrpcStatus(jobs_->CreateFineTuningJob(ContextWith(kTenantKey).get(), request, &job));
  }
  // Changes the vector's record in the database of a server that is stopped meanwhile.
  void TamperAndRestart(const std::function<void(VectorRecord&)>& change) {
    server_.reset();
    ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(
          auto record, GetRecord<VectorRecord>(tx, "", vector_.name().substr(8), Hold::kExclusive));
      change(*record);
      return ReplaceRecord(tx, *record);
    }));
    Restart();
  }

  V vector_;
};

TEST_F(CertificatesTest, ATrainedVectorWaits) {
  EXPECT_EQ(vector_.state(), V::CERTIFYING);
  EXPECT_FALSE(Model().ready());
  EXPECT_FALSE(Model().limits().has_envelope());
  EXPECT_THAT(CreateJob(UploadRows(40)), StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
  EXPECT_THAT(GetCertificate(vector_.name()), StatusIs(kNotFound, "CERTIFICATE_NOT_FOUND"));
}

TEST_F(CertificatesTest, CertifiedItServesAndCustomersSeeTheLimits) {
  ASSERT_OK_AND_ASSIGN(const SignedCertificate judged, Certify(Result(), /*validate_only=*/true));
  EXPECT_TRUE(judged.certificate().passed());
  EXPECT_EQ(judged.payload(), "");
  EXPECT_EQ(Get().state(), V::CERTIFYING);

  ASSERT_OK_AND_ASSIGN(const SignedCertificate made, Certify(Result()));
  EXPECT_OK(envelope::VerifyCertificate(made, signer_.public_key()));
  EXPECT_EQ(Get().state(), V::ACTIVE);
  EXPECT_TRUE(Get().certified());
  const v1::BaseModel model = Model();
  EXPECT_TRUE(model.ready());
  EXPECT_EQ(model.limits().envelope().SerializeAsString(), PassingEnvelope().SerializeAsString());
  // The limits, and nothing of the vector.
  EXPECT_EQ(model.DebugString().find(vector_.name().substr(8)), std::string::npos);

  Restart();
  ASSERT_OK_AND_ASSIGN(const SignedCertificate stored, GetCertificate(vector_.name()));
  EXPECT_EQ(stored.SerializeAsString(), made.SerializeAsString());
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(UploadRows(40)));
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  EXPECT_EQ(response.work().lease().resource(), job.name());
  EXPECT_EQ(response.work().fine_tune().certificate().payload(), made.payload());
}

TEST_F(CertificatesTest, AJobOutsideIsRefusedByAValidationToo) {
  ASSERT_OK(Certify(Result()));
  const std::string dataset = UploadRows(40);
  for (const bool validate_only : {true, false}) {
    v1::Hyperparameters hyper;
    EXPECT_OK(Create(hyper, dataset, /*validate_only=*/true));
    hyper.set_learning_rate(1e-3);
    hyper.set_epochs(4);
    const absl::Status status = Create(hyper, dataset, validate_only);
    EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
    google::rpc::BadRequest bad;
    ASSERT_TRUE(bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value())));
    ASSERT_EQ(bad.field_violations_size(), 2);
    EXPECT_EQ(bad.field_violations(0).field(), "fine_tuning_job.hyperparameters.learning_rate");
    EXPECT_THAT(bad.field_violations(0).description(), HasSubstr("is 0.002; "));
    EXPECT_THAT(bad.field_violations(0).description(), HasSubstr("at most 0.001: lower"));
    EXPECT_EQ(bad.field_violations(1).field(), "fine_tuning_job.training_dataset");
  }
}

TEST_F(CertificatesTest, RowsThatAreNearlyTheSameCountAsPasses) {
  ASSERT_OK(Certify(Result()));
  std::string rows = Rows(40);
  rows += absl::StrReplaceAll(Rows(40), {{"question", "Question"}, {"answer", "answer, "}});
  ASSERT_OK_AND_ASSIGN(const auto dataset, CreateDataset());
  ASSERT_OK(Write(dataset.name(), 0, rows, DigestOf(rows)));
  server_->SettleForTest();
  EXPECT_EQ(GetDataset(dataset.name())->report().most_repeated_row(), 2);
  const absl::Status status = Create({}, dataset.name(), /*validate_only=*/true);
  EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is 6; "));
}

TEST_F(CertificatesTest, AFailedCertificateRejectsAlsoAfterARestart) {
  ASSERT_OK_AND_ASSIGN(const SignedCertificate made, Certify(FailingResult()));
  EXPECT_FALSE(made.certificate().passed());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Get().state(), V::REJECTED);
    EXPECT_THAT(Get().error_message(), StartsWith("CERTIFICATE_FAILED: ATTACK_SUCCESS_KNOWN"));
    EXPECT_FALSE(Model().ready());
    EXPECT_THAT(Certify(Result()), StatusIs(kPrecondition, "VECTOR_NOT_CERTIFIABLE"));
    EXPECT_THAT(Activate(vector_.name()), StatusIs(kPrecondition, "VECTOR_NOT_CERTIFYING"));
    EXPECT_THAT(CreateJob(UploadRows(40)), StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
    EXPECT_OK(GetCertificate(vector_.name()));
    server_->SettleForTest();
    EXPECT_EQ(EverythingStored().find("sealed bytes"), std::string::npos);
    Restart();
  }
}

TEST_F(CertificatesTest, ActivatedItServesAndSaysSo) {
  EXPECT_THAT(Activate(vector_.name(), "no"), StatusIs(kInvalid, "ACTIVATION_REASON_INVALID"));
  ASSERT_OK(Activate(vector_.name(), "for a first look"));
  EXPECT_EQ(Get().activation().reason(), "for a first look");
  EXPECT_FALSE(Get().certified());
  EXPECT_TRUE(Model().ready());
  EXPECT_EQ(Model().limits().envelope().SerializeAsString(),
            envelope::ConservativeEnvelope().SerializeAsString());
  const auto none = GetCertificate(vector_.name());
  EXPECT_THAT(none, StatusIs(kNotFound, "CERTIFICATE_NOT_FOUND"));
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("for a first look"));
  ASSERT_OK(CreateJob(UploadRows(40)));
  EXPECT_FALSE(Idle("w1")->work().fine_tune().has_certificate());
}

TEST_F(CertificatesTest, NamesAndResultsAreChecked) {
  EXPECT_THAT(Activate("vectors/none"), StatusIs(kNotFound, "VECTOR_NOT_FOUND"));
  EXPECT_THAT(Activate("nothing"), StatusIs(kInvalid, "NAME_INVALID"));
  EXPECT_THAT(GetCertificate("vectors/none"), StatusIs(kNotFound, "VECTOR_NOT_FOUND"));
  SuiteResult result = Result();
  result.set_vector("vectors/none");
  EXPECT_THAT(Certify(result), StatusIs(kNotFound, "VECTOR_NOT_FOUND"));
  result = Result();
  result.set_base_model_digest(DigestOf("another"));
  EXPECT_THAT(Certify(result), StatusIs(kInvalid, "SUITE_RESULT_MISMATCH"));
  result = Result();
  result.mutable_arms(1)->set_prompts(-1);
  EXPECT_THAT(Certify(result), StatusIs(kInvalid, "SUITE_RESULT_INVALID"));
  EXPECT_EQ(Get().state(), V::CERTIFYING);
}

TEST_F(CertificatesTest, AChangedDatabaseSlipsInNoCertificate) {
  ASSERT_OK(Certify(Result()));
  ASSERT_TRUE(Model().ready());
  VectorRecord original;
  TamperAndRestart([&](VectorRecord& record) {
    original = record;
    std::string& payload = *record.mutable_certificate()->mutable_payload();
    payload[payload.size() / 2] ^= 1;
  });
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(Get().serving_problem(), StartsWith("CERTIFICATE_SIGNATURE_WRONG"));
  EXPECT_THAT(GetCertificate(vector_.name()),
              StatusIs(absl::StatusCode::kDataLoss, "CERTIFICATE_INVALID"));
  TamperAndRestart([&](VectorRecord& record) { record = original; });
  EXPECT_TRUE(Model().ready());
  EXPECT_THAT(Get().serving_problem(), IsEmpty());
}

TEST_F(CertificatesTest, WithoutAKeyTheServerBelievesNoCertificate) {
  ASSERT_OK(Certify(Result()));
  server_signer_ = nullptr;
  Restart();
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(Get().serving_problem(), StartsWith("SIGNER_NOT_CONFIGURED"));
  EXPECT_THAT(Certify(Result()), StatusIs(kPrecondition, "SIGNER_NOT_CONFIGURED"));
  const KeySigner other;
  server_signer_ = &other;
  Restart();
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(Get().serving_problem(), StartsWith("CERTIFICATE_KEY_WRONG"));
}

}  // namespace
}  // namespace ballast::server::testing
