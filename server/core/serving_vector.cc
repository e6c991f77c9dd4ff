// SPDX-License-Identifier: Apache-2.0
#include "server/core/serving_vector.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/envelope.h"
#include "common/envelope/signed_certificate.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;

absl::Status Refused(const char* reason, const std::string& why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, why);
}

std::string DescribeSafetyRows(const admin::v1::DefencePolicy& policy) {
  if (policy.safety_row_share() == 0) return "no safety rows";
  return absl::StrCat("a share of ", policy.safety_row_share(), " of the safety rows ",
                      policy.safety_rows_digest());
}

std::string DescribeScreen(const admin::v1::DefencePolicy& policy) {
  if (policy.screen_digest().empty()) return "no screen";
  return absl::StrCat("the screen ", policy.screen_digest(), " with ",
                      admin::v1::ScreenAction_Name(policy.screen_action()));
}

}  // namespace

absl::Status SignerNotConfigured() {
  return Refused("SIGNER_NOT_CONFIGURED",
                 "the server has no key for certificates; set certificate_key_file in its "
                 "configuration and start it again");
}

absl::Status UnprotectedNotAllowed() {
  return Refused("UNPROTECTED_NOT_ALLOWED",
                 "this server lets no job run on an unprotected base model; that needs "
                 "allow_unprotected_base_models in its configuration");
}

admin::v1::VectorPolicy PolicyOf(const BaseModelRecord& base) {
  return base.vector_policy() == admin::v1::VECTOR_POLICY_BY_ROW ? admin::v1::VECTOR_POLICY_BY_ROW
                                                                 : admin::v1::VECTOR_POLICY_ALWAYS;
}

admin::v1::DefencePolicy DefencePolicyOf(const BaseModelRecord& base) {
  admin::v1::DefencePolicy policy;
  policy.set_vector_policy(PolicyOf(base));
  policy.set_safety_row_share(base.safety_rows().share());
  policy.set_safety_rows_digest(base.safety_rows().digest());
  policy.set_screen_digest(base.screen().digest());
  policy.set_screen_action(base.screen().action());
  return policy;
}

absl::StatusOr<ServingVector> ServingVectors::Judge(const VectorRecord& record,
                                                    const BaseModelRecord& base) const {
  const Vector& vector = record.vector();
  if (vector.state() != Vector::ACTIVE) {
    return Refused("VECTOR_NOT_ACTIVE", absl::StrCat("it is ", Vector::State_Name(vector.state())));
  }
  if (vector.base_model() != base.model().name() || vector.base_digest() != base.model().digest()) {
    return Refused("VECTOR_OF_ANOTHER_BASE", "it was trained for another base model");
  }
  if (!record.has_certificate()) {
    if (!vector.has_activation()) {
      return Refused("VECTOR_NOT_CERTIFIED",
                     "it has no certificate, and nobody has let it serve without one");
    }
    return ServingVector{record, false, envelope::ConservativeEnvelope()};
  }
  if (signer_ == nullptr) return SignerNotConfigured();
  BALLAST_ASSIGN_OR_RETURN(
      const admin::v1::Certificate certificate,
      envelope::VerifyCertificate(record.certificate(), signer_->public_key()));
  BALLAST_RETURN_IF_ERROR(envelope::CheckCertified(
      certificate,
      {record.id(), vector.version(), vector.ciphertext_digest(), base.model().digest()}));
  if (certificate.policy().vector_policy() != PolicyOf(base)) {
    return Refused(
        "POLICY_NOT_CERTIFIED",
        absl::StrCat("its certificate is for the policy ",
                     admin::v1::VectorPolicy_Name(certificate.policy().vector_policy()),
                     ", the base model has ", admin::v1::VectorPolicy_Name(PolicyOf(base))));
  }
  if (certificate.policy().safety_row_share() != base.safety_rows().share() ||
      certificate.policy().safety_rows_digest() != base.safety_rows().digest()) {
    return Refused(
        "POLICY_NOT_CERTIFIED",
        absl::StrCat("its certificate is for ", DescribeSafetyRows(certificate.policy()),
                     ", the base model has ", DescribeSafetyRows(DefencePolicyOf(base))));
  }
  if (certificate.policy().screen_digest() != base.screen().digest() ||
      certificate.policy().screen_action() != base.screen().action()) {
    return Refused("POLICY_NOT_CERTIFIED",
                   absl::StrCat("its certificate is for ", DescribeScreen(certificate.policy()),
                                ", the base model has ", DescribeScreen(DefencePolicyOf(base))));
  }
  BALLAST_RETURN_IF_ERROR(envelope::CheckEnvelope(certificate.envelope(), "envelope."));
  return ServingVector{record, true, certificate.envelope()};
}

absl::StatusOr<std::optional<Protection>> ServingVectors::Find(Transaction& tx,
                                                               const BaseModelRecord& base) const {
  if (base.model().unprotected()) {
    return allow_unprotected_ ? std::make_optional<Protection>() : std::nullopt;
  }
  std::optional<Protection> newest;
  int64_t newest_with_certificate = 0;  // version, whether or not it may serve
  BALLAST_RETURN_IF_ERROR(ForEachInState<VectorRecord>(
      tx, Vector::ACTIVE, [&](const VectorRecord& record) -> absl::StatusOr<bool> {
        const int64_t version = record.vector().version();
        if (record.vector().base_model() != base.model().name()) return true;
        if (record.has_certificate()) {
          newest_with_certificate = std::max(newest_with_certificate, version);
        }
        if (newest.has_value() && version <= newest->vector->record.vector().version()) return true;
        auto serving = Judge(record, base);
        if (serving.ok()) newest = Protection{*std::move(serving)};
        return true;
      }));
  // An operator's word of old is no reason to take jobs that a certificate was to hold inside its
  // envelope.
  if (newest.has_value() && !newest->vector->certified &&
      newest->vector->record.vector().version() < newest_with_certificate) {
    return std::nullopt;
  }
  return newest;
}

v1::TrainingLimits LimitsUnder(const BaseModelRecord& base,
                               const std::optional<Protection>& protection) {
  v1::TrainingLimits limits = base.model().limits();
  limits.clear_envelope();
  if (protection.has_value() && protection->vector.has_value()) {
    *limits.mutable_envelope() = protection->vector->envelope;
  }
  return limits;
}

}  // namespace ballast::server
