// SPDX-License-Identifier: Apache-2.0
#include "common/envelope/signed_certificate.h"

#include <string>

#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "common/envelope/envelope.h"
#include "gtest/gtest.h"

namespace ballast::envelope {
namespace {

using admin::v1::Certificate;
using admin::v1::SignedCertificate;
using ::ballast::testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class SignedCertificateTest : public ::testing::Test {
 protected:
  SignedCertificateTest() {
    made_.set_vector("vectors/vec-1");
    made_.set_version(2);
    made_.set_ciphertext_digest(thing_.ciphertext_digest);
    made_.set_base_model_digest(thing_.base_model_digest);
    *made_.mutable_envelope() = ConservativeEnvelope();
    made_.set_passed(true);
    Sign();
  }
  void Sign() {
    signed_.Clear();
    signed_.set_payload(made_.SerializeAsString());
    signed_.set_signature(key_.Sign(kCertificateType, signed_.payload()));
    signed_.set_key_id(key_.public_key().KeyId());
  }

  const CertifiedThing thing_{"vec-1", 2, DigestOf("sealed"), DigestOf("base")};
  const PrivateKey key_ = PrivateKey::Generate();
  Certificate made_;
  SignedCertificate signed_;
};

TEST_F(SignedCertificateTest, SaysWhatWasSigned) {
  ASSERT_OK_AND_ASSIGN(const Certificate read, VerifyCertificate(signed_, key_.public_key()));
  EXPECT_EQ(read.SerializeAsString(), made_.SerializeAsString());
  EXPECT_OK(CheckCertified(read, thing_));
  *signed_.mutable_certificate() = made_;
  EXPECT_OK(VerifyCertificate(signed_, key_.public_key()));
}

TEST_F(SignedCertificateTest, EveryBitIsSigned) {
  for (size_t i = 0; i < signed_.payload().size(); ++i) {
    SignedCertificate changed = signed_;
    (*changed.mutable_payload())[i] ^= 1;
    EXPECT_THAT(VerifyCertificate(changed, key_.public_key()),
                StatusIs(kInvalid, "CERTIFICATE_SIGNATURE_WRONG"))
        << i;
  }
}

TEST_F(SignedCertificateTest, AWiderEnvelopeIsNoticed) {
  made_.mutable_envelope()->set_max_scaled_learning_rate(1);
  SignedCertificate changed = signed_;
  changed.set_payload(made_.SerializeAsString());
  EXPECT_THAT(VerifyCertificate(changed, key_.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_SIGNATURE_WRONG"));
  // And one in the readable copy alone.
  *signed_.mutable_certificate() = made_;
  EXPECT_THAT(VerifyCertificate(signed_, key_.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_INVALID"));
  EXPECT_THAT(ReadCertificate(signed_), StatusIs(kInvalid, "CERTIFICATE_INVALID"));
}

TEST_F(SignedCertificateTest, AnotherKeysSignatureIsNone) {
  const PrivateKey other = PrivateKey::Generate();
  EXPECT_THAT(VerifyCertificate(signed_, other.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_KEY_WRONG"));
  signed_.set_key_id(other.public_key().KeyId());
  EXPECT_THAT(VerifyCertificate(signed_, other.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_SIGNATURE_WRONG"));
}

TEST_F(SignedCertificateTest, ASignedThingOfAnotherKindIsNoCertificate) {
  signed_.set_signature(key_.Sign("another type", signed_.payload()));
  EXPECT_THAT(VerifyCertificate(signed_, key_.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_SIGNATURE_WRONG"));
  signed_.set_payload("");
  signed_.set_signature(key_.Sign(kCertificateType, ""));
  EXPECT_THAT(VerifyCertificate(signed_, key_.public_key()),
              StatusIs(kInvalid, "CERTIFICATE_INVALID"));
}

TEST_F(SignedCertificateTest, IsAboutOneThingOnly) {
  for (const CertifiedThing& other :
       {CertifiedThing{"vec-2", 2, thing_.ciphertext_digest, thing_.base_model_digest},
        CertifiedThing{"vec-1", 3, thing_.ciphertext_digest, thing_.base_model_digest},
        CertifiedThing{"vec-1", 2, DigestOf("other"), thing_.base_model_digest},
        CertifiedThing{"vec-1", 2, thing_.ciphertext_digest, DigestOf("other")}}) {
    EXPECT_THAT(CheckCertified(made_, other), StatusIs(kInvalid, "CERTIFICATE_MISMATCH"));
  }
  made_.set_passed(false);
  EXPECT_THAT(CheckCertified(made_, thing_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "CERTIFICATE_NOT_PASSED"));
}

}  // namespace
}  // namespace ballast::envelope
