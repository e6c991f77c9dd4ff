// SPDX-License-Identifier: Apache-2.0
// How vectors come to serve, and that nothing else makes them serve.
#include "server/core/vector_certification.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "common/envelope/signed_certificate.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/base_model_catalog.h"
#include "server/core/records.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using admin::v1::SignedCertificate;
using admin::v1::SuiteResult;
using ::ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using V = admin::v1::Vector;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

// A base whose one vector, vec-2, waits for its certificate.
class VectorCertificationTest : public CoreFixture {
 protected:
  void SetUp() override {
    CoreFixture::SetUp();
    ASSERT_OK(vectors_->Retire("vec-1"));
    AddVector("vec-2", 2, V::CERTIFYING);
  }
  absl::StatusOr<SignedCertificate> Certify(const SuiteResult& result,
                                            const std::string& id = "vec-2") {
    return certification_->Certify(now_, id, result, /*validate_only=*/false);
  }
  v1::BaseModel Model() {
    const auto model = BaseModelCatalog(store_, serving_).Get("base");
    EXPECT_OK(model);
    return model.value_or(v1::BaseModel());
  }
};

TEST_F(VectorCertificationTest, ATrainedVectorServesNothing) {
  EXPECT_FALSE(Model().ready());
  EXPECT_FALSE(Model().limits().has_envelope());
  EXPECT_THAT(jobs_->Create(now_, "acme", JobRequest("acme")),
              StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
}

TEST_F(VectorCertificationTest, ACertificateMakesItServeInsideItsEnvelope) {
  ASSERT_OK_AND_ASSIGN(const SignedCertificate made, Certify(GoodResult("vec-2")));
  EXPECT_TRUE(made.certificate().passed());
  EXPECT_OK(envelope::VerifyCertificate(made, signer_.public_key()));
  EXPECT_EQ(Vector("vec-2").state(), V::ACTIVE);
  EXPECT_TRUE(Vector("vec-2").certified());
  EXPECT_EQ(Vector("vec-2").serving_problem(), "");
  EXPECT_TRUE(Model().ready());
  EXPECT_EQ(Model().limits().envelope().max_steps(), 750);
  ASSERT_OK_AND_ASSIGN(const SignedCertificate again, certification_->GetCertificate("vec-2"));
  EXPECT_EQ(again.SerializeAsString(), made.SerializeAsString());

  const std::string name = CreateJob();
  const auto work = Idle("w1").work();
  EXPECT_EQ(work.lease().resource(), name);
  EXPECT_EQ(work.fine_tune().certificate().payload(), made.payload());
  EXPECT_FALSE(work.fine_tune().certificate().has_certificate());
}

TEST_F(VectorCertificationTest, JudgingAloneChangesNothing) {
  ASSERT_OK_AND_ASSIGN(const auto judged, certification_->Certify(now_, "vec-2", BadResult("vec-2"),
                                                                  /*validate_only=*/true));
  EXPECT_FALSE(judged.certificate().passed());
  EXPECT_EQ(judged.signature(), "");
  EXPECT_EQ(Vector("vec-2").state(), V::CERTIFYING);
  EXPECT_THAT(certification_->GetCertificate("vec-2"),
              StatusIs(kNotFound, "CERTIFICATE_NOT_FOUND"));
}

TEST_F(VectorCertificationTest, AResultThatSaysTooLittleLeavesTheVectorAsItIs) {
  const auto without = [](const SuiteResult& result, admin::v1::AttackKind kind,
                          admin::v1::Defence who) {
    SuiteResult less = result;
    less.clear_arms();
    for (const auto& arm : result.arms()) {
      if (arm.kind() != kind || arm.defence() != who) *less.add_arms() = arm;
    }
    return less;
  };
  const auto benign = [&](const SuiteResult& result) {
    return without(result, admin::v1::ATTACK_KIND_BENIGN, admin::v1::DEFENCE_VECTOR);
  };
  SuiteResult few = GoodResult("vec-2");
  for (auto& arm : *few.mutable_arms()) {
    if (arm.seeds_size() != 3) continue;
    arm.mutable_seeds()->Truncate(1);
    for (const auto& [value, set] :
         {std::pair{arm.not_refused(), &admin::v1::ArmResult::set_not_refused},
          {arm.newly_answered(), &admin::v1::ArmResult::set_newly_answered},
          {arm.harmless_refused(), &admin::v1::ArmResult::set_harmless_refused},
          {arm.task_right(), &admin::v1::ArmResult::set_task_right}}) {
      (arm.*set)(value / 3);
    }
  }
  SuiteResult narrow = GoodResult("vec-2");
  narrow.mutable_envelope()->set_max_steps(751);
  for (const auto& [result, criterion] :
       {std::pair{benign(GoodResult("vec-2")), "(ATTACK_SUCCESS_BENIGN)"},
        {without(GoodResult("vec-2"), admin::v1::ATTACK_KIND_KNOWN,
                 admin::v1::DEFENCE_RANDOM_VECTOR),
         "(RANDOM_VECTOR_DOES_NOT_DEFEND)"},
        {few, "(SEEDS)"},
        {narrow, "(ENVELOPE_MEASURED)"}}) {
    const auto made = Certify(result);
    EXPECT_THAT(made, StatusIs(kPrecondition, "SUITE_RESULT_INCOMPLETE"));
    EXPECT_THAT(made.status().message(), HasSubstr(criterion));
    EXPECT_EQ(Vector("vec-2").state(), V::CERTIFYING);
    // Judging alone shows what is missing.
    ASSERT_OK_AND_ASSIGN(const auto judged, certification_->Certify(now_, "vec-2", result, true));
    EXPECT_FALSE(judged.certificate().passed());
  }
  // A vector that serves goes on serving, by the certificate that it has.
  ASSERT_OK(Certify(GoodResult("vec-2")));
  EXPECT_THAT(Certify(narrow), StatusIs(kPrecondition, "SUITE_RESULT_INCOMPLETE"));
  EXPECT_TRUE(Model().ready());
  // What was measured and is bad tells enough.
  ASSERT_OK(Certify(benign(BadResult("vec-2"))));
  EXPECT_EQ(Vector("vec-2").state(), V::REJECTED);
}

TEST_F(VectorCertificationTest, AFailedCertificateRejectsForGood) {
  ASSERT_OK_AND_ASSIGN(const SignedCertificate made, Certify(BadResult("vec-2")));
  EXPECT_FALSE(made.certificate().passed());
  EXPECT_EQ(Vector("vec-2").state(), V::REJECTED);
  EXPECT_THAT(Vector("vec-2").error_message(),
              StartsWith("CERTIFICATE_FAILED: ATTACK_SUCCESS_KNOWN ("));
  EXPECT_THAT(Garbage(), Contains("vectors/vec-2"));
  EXPECT_FALSE(Model().ready());
  // Nothing brings it back: not a better result, not an operator's word, not a restart.
  Restart();
  EXPECT_THAT(Certify(GoodResult("vec-2")), StatusIs(kPrecondition, "VECTOR_NOT_CERTIFIABLE"));
  EXPECT_THAT(certification_->Activate(now_, "vec-2", "because I say so", "op"),
              StatusIs(kPrecondition, "VECTOR_NOT_CERTIFYING"));
  EXPECT_THAT(vectors_->Retire("vec-2"), StatusIs(kPrecondition, "VECTOR_NOT_ACTIVE"));
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(jobs_->Create(now_, "acme", JobRequest("acme")),
              StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
  // What it failed by can still be read.
  EXPECT_OK(certification_->GetCertificate("vec-2"));
  // Even with its state changed behind our back: the certificate says that it failed.
  Tamper("vec-2", [](VectorRecord& record) { record.mutable_vector()->set_state(V::ACTIVE); });
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(Vector("vec-2").serving_problem(), StartsWith("CERTIFICATE_NOT_PASSED"));
}

TEST_F(VectorCertificationTest, JobsUnderAVectorThatIsRejectedWaitAgain) {
  ASSERT_OK(certification_->Activate(now_, "vec-2", "for a first look", "op"));
  const std::string name = CreateJob();
  const auto work = Idle("w1").work();
  ASSERT_EQ(work.fine_tune().vector().vector_id(), "vec-2");
  ASSERT_OK(Certify(BadResult("vec-2")));
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  SynchronizeRequest busy = Request("w1");
  *busy.mutable_busy()->mutable_lease() = work.lease();
  EXPECT_THAT(plane_->Synchronize(now_, busy), StatusIs(kPrecondition, "LEASE_LOST"));
  // What the worker made under it is not taken.
  EXPECT_THAT(plane_->Synchronize(now_, FinishedDelta("w1", work.lease())),
              StatusIs(kPrecondition, "LEASE_LOST"));
  EXPECT_EQ(Job(name).state(), FineTuningJob::QUEUED);
  EXPECT_TRUE(Idle("w1").has_idle());
  AddActiveVector("vec-3", 3);
  const auto next = Idle("w1").work();
  EXPECT_EQ(next.lease().resource(), name);
  EXPECT_EQ(next.fine_tune().vector().vector_id(), "vec-3");
  EXPECT_FALSE(next.fine_tune().has_certificate());
}

TEST_F(VectorCertificationTest, AResultOfAnotherVectorChangesNothing) {
  SuiteResult other = BadResult("vec-2");
  other.set_vector("vectors/vec-1");
  EXPECT_THAT(Certify(other), StatusIs(kInvalid, "SUITE_RESULT_MISMATCH"));
  other = GoodResult("vec-2");
  other.set_ciphertext_digest(DigestOf("another"));
  EXPECT_THAT(Certify(other), StatusIs(kInvalid, "SUITE_RESULT_MISMATCH"));
  other.clear_arms();
  EXPECT_THAT(Certify(other), StatusIs(kInvalid, "SUITE_RESULT_INVALID"));
  EXPECT_EQ(Vector("vec-2").state(), V::CERTIFYING);
  EXPECT_THAT(Certify(GoodResult("vec-2"), "vec-9"), StatusIs(kNotFound, "VECTOR_NOT_FOUND"));
  AddVector("vec-4", 4, V::TRAINING);
  EXPECT_THAT(Certify(GoodResult("vec-4"), "vec-4"),
              StatusIs(kPrecondition, "VECTOR_NOT_CERTIFIABLE"));
}

TEST_F(VectorCertificationTest, AnOperatorsWordServesInAConservativeEnvelope) {
  EXPECT_THAT(certification_->Activate(now_, "vec-2", "short", "op"),
              StatusIs(kInvalid, "ACTIVATION_REASON_INVALID"));
  EXPECT_THAT(certification_->Activate(now_, "vec-2", std::string(501, 'x'), "op"),
              StatusIs(kInvalid, "ACTIVATION_REASON_INVALID"));
  ASSERT_OK_AND_ASSIGN(const auto vector,
                       certification_->Activate(now_, "vec-2", "for a first look", "op"));
  EXPECT_EQ(vector.state(), V::ACTIVE);
  EXPECT_FALSE(vector.certified());
  EXPECT_EQ(vector.activation().reason(), "for a first look");
  EXPECT_EQ(vector.activation().actor(), "op");
  EXPECT_TRUE(Model().ready());
  EXPECT_EQ(Model().limits().envelope().SerializeAsString(),
            envelope::ConservativeEnvelope().SerializeAsString());
  EXPECT_THAT(certification_->GetCertificate("vec-2"),
              StatusIs(kNotFound, "CERTIFICATE_NOT_FOUND"));
  CreateJob();
  EXPECT_FALSE(Idle("w1").work().fine_tune().has_certificate());
  // Its certificate takes the place of the word.
  ASSERT_OK(Certify(GoodResult("vec-2")));
  EXPECT_TRUE(Vector("vec-2").certified());
  EXPECT_FALSE(Vector("vec-2").has_activation());
  EXPECT_THAT(certification_->Activate(now_, "vec-2", "for a second look", "op"),
              StatusIs(kPrecondition, "VECTOR_NOT_CERTIFYING"));
}

TEST_F(VectorCertificationTest, AVectorFromBeforeCertificatesServesOnceItIsActivated) {
  Tamper("vec-2", [](VectorRecord& record) { record.mutable_vector()->set_state(V::ACTIVE); });
  EXPECT_FALSE(Model().ready());
  EXPECT_THAT(Vector("vec-2").serving_problem(), StartsWith("VECTOR_NOT_CERTIFIED"));
  ASSERT_OK(certification_->Activate(now_, "vec-2", "trained before certificates", "op"));
  EXPECT_TRUE(Model().ready());
}

// What somebody at the database may try. Each leaves the base without a vector that serves.
class TamperedTest : public VectorCertificationTest {
 protected:
  void SetUp() override {
    VectorCertificationTest::SetUp();
    ASSERT_OK(Certify(GoodResult("vec-2")));
    ASSERT_TRUE(Model().ready());
  }
  void ExpectServesNot(const std::string& reason) {
    Restart();
    EXPECT_FALSE(Model().ready());
    EXPECT_FALSE(Vector("vec-2").certified());
    EXPECT_THAT(Vector("vec-2").serving_problem(), StartsWith(reason));
    EXPECT_THAT(jobs_->Create(now_, "acme", JobRequest("acme")),
                StatusIs(kPrecondition, "NO_ACTIVE_VECTOR"));
  }
};

TEST_F(TamperedTest, AWiderEnvelope) {
  const std::string waiting = CreateJob();
  Tamper("vec-2", [](VectorRecord& record) {
    admin::v1::Certificate certificate;
    ASSERT_TRUE(certificate.ParseFromString(record.certificate().payload()));
    certificate.mutable_envelope()->set_max_scaled_learning_rate(1);
    record.mutable_certificate()->set_payload(certificate.SerializeAsString());
  });
  ExpectServesNot("CERTIFICATE_SIGNATURE_WRONG");
  EXPECT_THAT(certification_->GetCertificate("vec-2"),
              StatusIs(absl::StatusCode::kDataLoss, "CERTIFICATE_INVALID"));
  // Nor is a job handed out that was admitted before.
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_EQ(Job(waiting).state(), FineTuningJob::QUEUED);
}

TEST_F(TamperedTest, AReadableCopyThatSaysMore) {
  Tamper("vec-2", [](VectorRecord& record) {
    auto& copy = *record.mutable_certificate()->mutable_certificate();
    ASSERT_TRUE(copy.ParseFromString(record.certificate().payload()));
    copy.mutable_envelope()->set_max_steps(1'000'000);
  });
  ExpectServesNot("CERTIFICATE_INVALID");
}

TEST_F(TamperedTest, AnotherKeysCertificate) {
  const KeySigner other;
  Tamper("vec-2", [&](VectorRecord& record) {
    auto& certificate = *record.mutable_certificate();
    certificate.set_signature(other.Sign(envelope::kCertificateType, certificate.payload()));
    certificate.set_key_id(other.public_key().KeyId());
  });
  ExpectServesNot("CERTIFICATE_KEY_WRONG");
}

TEST_F(TamperedTest, AnotherVectorsCertificate) {
  AddVector("vec-3", 3, V::CERTIFYING);
  ASSERT_OK_AND_ASSIGN(const SignedCertificate other, Certify(GoodResult("vec-3"), "vec-3"));
  ASSERT_OK(vectors_->Retire("vec-3"));
  Tamper("vec-2", [&](VectorRecord& record) { *record.mutable_certificate() = other; });
  ExpectServesNot("CERTIFICATE_MISMATCH");
}

TEST_F(TamperedTest, AnotherCiphertext) {
  Tamper("vec-2", [](VectorRecord& record) {
    record.mutable_vector()->set_ciphertext_digest(DigestOf("a vector that does nothing"));
  });
  ExpectServesNot("CERTIFICATE_MISMATCH");
}

TEST_F(TamperedTest, AnotherBase) {
  AddBase("twin", DigestOf("twin"));
  Tamper("vec-2", [](VectorRecord& record) {
    record.mutable_vector()->set_base_model("baseModels/twin");
    record.mutable_vector()->set_base_digest(DigestOf("twin"));
  });
  const auto twin = BaseModelCatalog(store_, serving_).Get("twin");
  ASSERT_OK(twin);
  EXPECT_FALSE(twin->ready());
  ExpectServesNot("CERTIFICATE_MISMATCH");
}

TEST_F(TamperedTest, AnotherPolicy) {
  ChangeBase(
      [&](BaseModelRecord& base) { base.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW); });
  ExpectServesNot("POLICY_NOT_CERTIFIED");
}

TEST_F(TamperedTest, OtherSafetyRows) {
  ChangeBase([&](BaseModelRecord& base) {
    base.mutable_safety_rows()->set_share(0.1);
    base.mutable_safety_rows()->set_digest(DigestOf("rows"));
  });
  ExpectServesNot("POLICY_NOT_CERTIFIED");
}

TEST_F(TamperedTest, AnotherScreen) {
  ChangeBase([&](BaseModelRecord& base) {
    base.mutable_screen()->set_digest(DigestOf("screen"));
    base.mutable_screen()->set_action(admin::v1::SCREEN_ACTION_DROP);
  });
  ExpectServesNot("POLICY_NOT_CERTIFIED");
}

TEST_F(TamperedTest, WithoutAKeyNoCertificateIsBelieved) {
  const ServingVectors keyless(nullptr);
  const auto model = BaseModelCatalog(store_, keyless).Get("base");
  ASSERT_OK(model);
  EXPECT_FALSE(model->ready());
  EXPECT_THAT(VectorCatalog(store_, listener_, keyless).Get("vec-2")->serving_problem(),
              StartsWith("SIGNER_NOT_CONFIGURED"));
  VectorCertification certification(store_, listener_, keyless);
  EXPECT_THAT(certification.Certify(now_, "vec-2", GoodResult("vec-2"), false),
              StatusIs(kPrecondition, "SIGNER_NOT_CONFIGURED"));
  EXPECT_OK(certification.Certify(now_, "vec-2", GoodResult("vec-2"), true));
}

TEST_F(VectorCertificationTest, AnOlderVectorServesWhereTheNewestDoesNot) {
  AddActiveVector("vec-0", 1);
  ASSERT_OK(Certify(GoodResult("vec-2")));
  EXPECT_EQ(Model().limits().envelope().max_steps(), 750);
  Tamper("vec-2", [](VectorRecord& record) {
    (*record.mutable_certificate()->mutable_signature())[0] ^= 1;
  });
  EXPECT_FALSE(Model().ready()) << "an operator's word does not stand in for a certificate";
  ASSERT_OK(vectors_->Retire("vec-2"));
  EXPECT_TRUE(Model().ready());
  EXPECT_EQ(Model().limits().envelope().max_steps(), envelope::ConservativeEnvelope().max_steps());

  AddVector("vec-3", 3, V::CERTIFYING);
  ASSERT_OK(Certify(GoodResult("vec-3"), "vec-3"));
  AddVector("vec-4", 4, V::CERTIFYING);
  ASSERT_OK(Certify(GoodResult("vec-4"), "vec-4"));
  Tamper("vec-4", [](VectorRecord& record) {
    (*record.mutable_certificate()->mutable_signature())[0] ^= 1;
  });
  EXPECT_TRUE(Model().ready());
  EXPECT_EQ(Model().limits().envelope().max_steps(), 750) << "another certified one does";
}

TEST_F(VectorCertificationTest, AQueuedJobOutsideANewEnvelopeWaitsAndSaysWhy) {
  ASSERT_OK(certification_->Activate(now_, "vec-2", "for a first look", "op"));
  auto request = JobRequest("acme");
  request.mutable_fine_tuning_job()->mutable_hyperparameters()->set_epochs(5);
  ASSERT_OK_AND_ASSIGN(const auto job, jobs_->Create(now_, "acme", request));
  ASSERT_OK(Certify(GoodResult("vec-2")));  // at most 3 passes
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_EQ(Job(job.name()).state(), FineTuningJob::QUEUED);
  int messages = 0;
  for (const v1::JobEvent& event : Events(job.name())) {
    if (!event.has_message()) continue;
    ++messages;
    EXPECT_THAT(event.message(), HasSubstr("is 5; the protection of this base model was measured "
                                           "with at most 3"));
  }
  EXPECT_EQ(messages, 1);
  // It holds up nobody, and goes on with a vector whose envelope holds it.
  now_ += absl::Seconds(1);
  const std::string inside = CreateJob();
  EXPECT_EQ(Idle("w1").work().lease().resource(), inside);
  AddActiveVector("vec-3", 3);
  EXPECT_EQ(Idle("w2").work().lease().resource(), job.name());
}

TEST_F(VectorCertificationTest, AdmissionRefusesJobsOutsideWithFieldAndLimit) {
  ASSERT_OK(Certify(GoodResult("vec-2")));
  for (const bool validate_only : {true, false}) {
    auto request = JobRequest("acme");
    request.set_validate_only(validate_only);
    auto& hyper = *request.mutable_fine_tuning_job()->mutable_hyperparameters();
    hyper.set_learning_rate(2e-3);
    hyper.set_lora_rank(8);
    const absl::Status status = jobs_->Create(now_, "acme", request).status();
    EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("lora_rank is 8"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("is 0.004; "));
    hyper.Clear();
    EXPECT_OK(jobs_->Create(now_, "acme", request));
  }
}

}  // namespace
}  // namespace ballast::server::testing
