// SPDX-License-Identifier: Apache-2.0
// A vector's certificate as it is handed about: signed bytes, and what they say.
#ifndef BALLAST_COMMON_ENVELOPE_SIGNED_CERTIFICATE_H_
#define BALLAST_COMMON_ENVELOPE_SIGNED_CERTIFICATE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/certificate.pb.h"
#include "common/base/signature.h"

namespace ballast::envelope {

// What the signature binds the bytes to.
inline constexpr char kCertificateType[] = "application/vnd.ballast.certificate.v1";

// What a certificate is about.
struct CertifiedThing {
  std::string vector_id;
  int32_t version = 0;
  std::string ciphertext_digest;
  std::string base_model_digest;
};

// What the signed bytes say, whoever signed them. INVALID_ARGUMENT (CERTIFICATE_INVALID): they are
// no certificate, or the readable copy beside them, where there is one, says something else.
absl::StatusOr<admin::v1::Certificate> ReadCertificate(
    const admin::v1::SignedCertificate& certificate);

// The same, signed by `key`. INVALID_ARGUMENT (CERTIFICATE_INVALID, CERTIFICATE_KEY_WRONG,
// CERTIFICATE_SIGNATURE_WRONG).
absl::StatusOr<admin::v1::Certificate> VerifyCertificate(
    const admin::v1::SignedCertificate& certificate, const PublicKey& key);

// INVALID_ARGUMENT (CERTIFICATE_MISMATCH) unless `certificate` is about `thing`, naming the field;
// FAILED_PRECONDITION (CERTIFICATE_NOT_PASSED) where it did not pass.
absl::Status CheckCertified(const admin::v1::Certificate& certificate, const CertifiedThing& thing);

}  // namespace ballast::envelope

#endif  // BALLAST_COMMON_ENVELOPE_SIGNED_CERTIFICATE_H_
