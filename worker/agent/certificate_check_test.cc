// SPDX-License-Identifier: Apache-2.0
// Certificates before the training: what does not hold is not trained under.
#include "worker/agent/certificate_check.h"

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/envelope/envelope.h"
#include "common/envelope/signed_certificate.h"
#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using admin::v1::Certificate;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;

class CertificateCheckTest : public AgentTest {
 protected:
  // A certificate that holds for `work`.
  static Certificate GoodFor(const pb::Work& work) {
    const auto& vector = work.fine_tune().vector();
    Certificate certificate;
    certificate.set_vector("vectors/" + vector.vector_id());
    certificate.set_version(vector.version());
    certificate.set_ciphertext_digest(vector.ciphertext_digest());
    certificate.set_base_model_digest(work.base_model().digest());
    certificate.mutable_policy()->set_vector_policy(admin::v1::VECTOR_POLICY_ALWAYS);
    *certificate.mutable_envelope() = envelope::ConservativeEnvelope();
    certificate.set_passed(true);
    return certificate;
  }
  void Sign(const Certificate& certificate, const PrivateKey& key, pb::Work& work) {
    auto& out = *work.mutable_fine_tune()->mutable_certificate();
    out.set_payload(certificate.SerializeAsString());
    out.set_signature(key.Sign(envelope::kCertificateType, out.payload()));
    out.set_key_id(key.public_key().KeyId());
  }
  // The fixture's job with a certificate that holds, changed by `change` before it is signed.
  pb::Work Certified(const std::function<void(Certificate&)>& change = [](Certificate&) {}) {
    pb::Work work = Job();
    auto* dataset = work.mutable_fine_tune()->mutable_training_dataset();
    SetDataset(dataset, "blob-rows", Rows(12));
    dataset->set_rows_accepted(12);
    Certificate certificate = GoodFor(work);
    change(certificate);
    Sign(certificate, key_, work);
    return work;
  }
  // Nothing is trained for `work`, whether the key is pinned or not, and the log says `why`.
  void ExpectRefused(const pb::Work& work, const std::string& why) {
    const PublicKey pinned = key_.public_key();
    for (const PublicKey* key : {static_cast<const PublicKey*>(nullptr), &pinned}) {
      log_.str("");
      EXPECT_THAT(CheckCertificate(work, key),
                  StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
      EXPECT_THAT(log_.str(), HasSubstr(why));
    }
  }

  const PrivateKey key_ = PrivateKey::Generate();
};

TEST_F(CertificateCheckTest, AJobUnderACertificateIsTrainedAndItsManifestSaysSo) {
  certificate_key_ = key_.public_key();
  server_.GiveWork(Certified());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  ASSERT_OK_AND_ASSIGN(const artifact::Manifest manifest,
                       artifact::ReadManifest(server_.written().at("delta/manifest.json")));
  EXPECT_TRUE(manifest.certified);
  EXPECT_THAT(server_.written().at("delta/README.md"), HasSubstr("was measured"));
}

TEST_F(CertificateCheckTest, WithoutOneItIsTrainedUnlessAKeyIsPinned) {
  EXPECT_OK(CheckCertificate(Job(), nullptr));
  certificate_key_ = key_.public_key();
  server_.GiveWork(Job());
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_THAT(log_.str(), HasSubstr("has no certificate"));
}

TEST_F(CertificateCheckTest, IsAboutThisCiphertextBaseVectorAndPolicy) {
  EXPECT_OK(CheckCertificate(Certified(), nullptr));
  ExpectRefused(Certified([](Certificate& c) { c.set_ciphertext_digest(DigestOf("other")); }),
                "CERTIFICATE_MISMATCH");
  ExpectRefused(Certified([](Certificate& c) { c.set_base_model_digest(DigestOf("other")); }),
                "CERTIFICATE_MISMATCH");
  ExpectRefused(Certified([](Certificate& c) { c.set_vector("vectors/vec-9"); }),
                "CERTIFICATE_MISMATCH");
  ExpectRefused(Certified([](Certificate& c) { c.set_version(1); }), "CERTIFICATE_MISMATCH");
  ExpectRefused(Certified([](Certificate& c) { c.set_passed(false); }), "CERTIFICATE_NOT_PASSED");
  ExpectRefused(Certified([](Certificate& c) {
                  c.mutable_policy()->set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW);
                }),
                "another vector policy");
  ExpectRefused(
      Certified([](Certificate& c) { c.mutable_policy()->set_screen_digest(DigestOf("screen")); }),
      "another screen");
  ExpectRefused(Certified([](Certificate& c) {
                  c.mutable_policy()->set_screen_action(ballast::admin::v1::SCREEN_ACTION_DROP);
                }),
                "another screen");
  ExpectRefused(Certified([](Certificate& c) { c.mutable_policy()->set_safety_row_share(0.1); }),
                "other safety rows");
  ExpectRefused(Certified([](Certificate& c) {
                  c.mutable_policy()->set_safety_rows_digest(DigestOf("rows"));
                }),
                "other safety rows");
}

TEST_F(CertificateCheckTest, OfAnotherBaseNothingIsTrained) {
  server_.GiveWork(Certified([](Certificate& c) { c.set_base_model_digest(DigestOf("other")); }));
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(CertificateCheckTest, OtherBytesThanThoseThatWereCertifiedAreNotUsed) {
  // The certificate and the work agree on a digest that the stored bytes do not have.
  pb::Work work = Certified();
  server_.SetBlob("blob-vector", "other bytes");
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
}

TEST_F(CertificateCheckTest, AChangedBitIsNoticedWhereTheKeyIsPinned) {
  const PublicKey pinned = key_.public_key();
  ASSERT_OK(CheckCertificate(Certified(), &pinned));
  pb::Work work = Certified();
  Certificate wider;
  ASSERT_TRUE(wider.ParseFromString(work.fine_tune().certificate().payload()));
  wider.mutable_envelope()->set_max_scaled_learning_rate(1);
  work.mutable_fine_tune()->mutable_certificate()->set_payload(wider.SerializeAsString());
  EXPECT_THAT(CheckCertificate(work, &pinned),
              StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
  EXPECT_THAT(log_.str(), HasSubstr("CERTIFICATE_SIGNATURE_WRONG"));
  work = Certified();
  Sign(GoodFor(work), PrivateKey::Generate(), work);
  EXPECT_THAT(CheckCertificate(work, &pinned),
              StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
  EXPECT_THAT(log_.str(), HasSubstr("CERTIFICATE_KEY_WRONG"));
}

TEST_F(CertificateCheckTest, WhereTheKeyIsPinnedTheEnvelopeHoldsAgainstTheServerToo) {
  const PublicKey pinned = key_.public_key();
  pb::Work work = Certified();
  work.mutable_fine_tune()->mutable_job()->mutable_hyperparameters()->set_learning_rate(0.1);
  EXPECT_OK(CheckCertificate(work, nullptr));
  EXPECT_THAT(CheckCertificate(work, &pinned),
              StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
  EXPECT_THAT(log_.str(), HasSubstr("OUTSIDE_ENVELOPE"));
  work = Certified();
  work.mutable_fine_tune()->mutable_training_dataset()->clear_rows_accepted();
  EXPECT_THAT(CheckCertificate(work, &pinned),
              StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
}

TEST_F(CertificateCheckTest, WhereTheKeyIsPinnedTheRowsAreCountedAgain) {
  const PublicKey pinned = key_.public_key();
  const pb::Work work = Certified();
  const auto log_of = [&](const envelope::RowStatistics& rows) {
    log_.str("");
    EXPECT_OK(CheckRowsCertified(work, nullptr, rows));
    EXPECT_THAT(CheckRowsCertified(work, &pinned, rows),
                StatusIs(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE"));
    return log_.str();
  };
  EXPECT_OK(CheckRowsCertified(work, &pinned, {12, 5}));
  EXPECT_THAT(log_of({12, 6}), HasSubstr("passes over nearly the same row is 12"));
  EXPECT_THAT(log_of({8, 1}), HasSubstr("BELOW_MINIMUM"));
}

TEST_F(CertificateCheckTest, RepeatedRowsAreNotTrainedWhateverTheServerSays) {
  certificate_key_ = key_.public_key();
  pb::Work work = Certified();
  std::string rows = Rows(12);
  for (int i = 0; i < 6; ++i) absl::StrAppend(&rows, Rows(1, "yes" + std::string(i, '!')));
  SetDataset(work.mutable_fine_tune()->mutable_training_dataset(), "blob-rows", rows);
  work.mutable_fine_tune()->mutable_training_dataset()->set_rows_accepted(17);
  server_.GiveWork(work);
  StartAgent();
  ExpectProtectionUnavailable(server_.WaitForFinished());
  EXPECT_THAT(log_.str(), HasSubstr("not what the certificate"));
}

}  // namespace
}  // namespace ballast::worker::agent
