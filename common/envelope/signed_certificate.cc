// SPDX-License-Identifier: Apache-2.0
#include "common/envelope/signed_certificate.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "google/protobuf/util/message_differencer.h"

namespace ballast::envelope {
namespace {

using admin::v1::Certificate;
using admin::v1::SignedCertificate;

absl::Status Wrong(const char* reason, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, what);
}

}  // namespace

absl::StatusOr<Certificate> ReadCertificate(const SignedCertificate& certificate) {
  Certificate read;
  if (certificate.payload().empty() || !read.ParseFromString(certificate.payload()) ||
      read.vector().empty()) {
    return Wrong("CERTIFICATE_INVALID", "the signed bytes are no certificate");
  }
  if (certificate.has_certificate() &&
      !google::protobuf::util::MessageDifferencer::Equals(certificate.certificate(), read)) {
    return Wrong("CERTIFICATE_INVALID",
                 "what is readable of the certificate is not what was signed; trust neither");
  }
  return read;
}

absl::StatusOr<Certificate> VerifyCertificate(const SignedCertificate& certificate,
                                              const PublicKey& key) {
  if (certificate.key_id() != key.KeyId()) {
    return Wrong("CERTIFICATE_KEY_WRONG",
                 absl::StrCat("the certificate was signed with the key ", certificate.key_id(),
                              ", not with ", key.KeyId(), "; give the signer's public key"));
  }
  if (!key.Verify(kCertificateType, certificate.payload(), certificate.signature())) {
    return Wrong("CERTIFICATE_SIGNATURE_WRONG",
                 "the certificate was changed after it was signed, or its signature was");
  }
  return ReadCertificate(certificate);
}

absl::Status CheckCertified(const Certificate& certificate, const CertifiedThing& thing) {
  const auto same = [](const char* field, const std::string& says, const std::string& is) {
    if (says == is) return absl::OkStatus();
    return Wrong("CERTIFICATE_MISMATCH", absl::StrCat("the certificate is about the ", field, " ",
                                                      says, ", not about ", is));
  };
  BALLAST_RETURN_IF_ERROR(
      same("vector", certificate.vector(), absl::StrCat("vectors/", thing.vector_id)));
  BALLAST_RETURN_IF_ERROR(
      same("version", absl::StrCat(certificate.version()), absl::StrCat(thing.version)));
  BALLAST_RETURN_IF_ERROR(
      same("ciphertext", certificate.ciphertext_digest(), thing.ciphertext_digest));
  BALLAST_RETURN_IF_ERROR(
      same("base model", certificate.base_model_digest(), thing.base_model_digest));
  if (!certificate.passed()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "CERTIFICATE_NOT_PASSED",
                     "the certificate says that the vector does not protect enough");
  }
  return absl::OkStatus();
}

}  // namespace ballast::envelope
