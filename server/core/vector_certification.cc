// SPDX-License-Identifier: Apache-2.0
#include "server/core/vector_certification.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/signed_certificate.h"
#include "server/core/certificate.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/transitions.h"
#include "server/core/vector_catalog.h"

namespace ballast::server {
namespace {

using admin::v1::Certificate;
using admin::v1::SignedCertificate;
using admin::v1::Vector;

constexpr size_t kShortestReason = 10;
constexpr size_t kLongestReason = 500;

absl::Status WrongState(const char* reason, const VectorRecord& record, const std::string& wanted) {
  const std::string state = Vector::State_Name(record.vector().state());
  return MakeError(absl::StatusCode::kFailedPrecondition, reason,
                   absl::StrCat(record.vector().name(), " is ", state, "; ", wanted),
                   {{"state", state}});
}

std::string WhyRejected(const Certificate& certificate) {
  std::vector<std::string> failed;
  for (const auto& criterion : certificate.criteria()) {
    if (!criterion.passed()) {
      failed.push_back(absl::StrCat(criterion.name(), " (", criterion.message(), ")"));
    }
  }
  return absl::StrCat("CERTIFICATE_FAILED: ", absl::StrJoin(failed, "; "));
}

// Takes back the attempts that run under a vector: what it is found not to protect must not be
// delivered. Their workers lose the lease at the next call.
absl::StatusOr<std::vector<TenantName>> TakeBackAttempts(Transaction& tx, const std::string& vector,
                                                         absl::Time now) {
  std::vector<TenantName> running, taken_back;
  for (const auto state : kLeasedStates) {
    BALLAST_RETURN_IF_ERROR(
        ForEachInState<JobRecord>(tx, state, [&](const JobRecord& record) -> absl::StatusOr<bool> {
          if (record.vector_id() == vector) running.push_back({record.tenant(), record.id()});
          return true;
        }));
  }
  for (const TenantName& name : running) {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<JobRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value() || !IsLeased(record->job().state()) || record->vector_id() != vector) {
      continue;
    }
    BALLAST_RETURN_IF_ERROR(MoveJob(tx, *record, WorkEvent::kHandedBack, {}, now));
    taken_back.push_back(name);
  }
  return taken_back;
}

}  // namespace

absl::StatusOr<SignedCertificate> VectorCertification::Certify(absl::Time now,
                                                               const std::string& id,
                                                               const admin::v1::SuiteResult& result,
                                                               bool validate_only) {
  BALLAST_RETURN_IF_ERROR(CheckSuiteResult(result));
  SignedCertificate made;
  std::vector<TenantName> taken_back;
  const auto judge = [&](Transaction& tx) -> absl::StatusOr<VectorRecord> {
    BALLAST_ASSIGN_OR_RETURN(VectorRecord record, FindVector(tx, id, Hold::kExclusive));
    if (!NextState(record.vector().state(), VectorDecision::kCertified).has_value()) {
      return WrongState("VECTOR_NOT_CERTIFIABLE", record,
                        "only a CERTIFYING or ACTIVE vector can be certified");
    }
    BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                             ParseBaseModelName(record.vector().base_model(), "vector.base_model"));
    BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(CheckMeasured(result, record, *base));
    made.Clear();
    *made.mutable_certificate() = JudgeSuiteResult(result, record, now);
    return record;
  };
  if (validate_only) {
    BALLAST_RETURN_IF_ERROR(
        store_.Read([&](Transaction& tx) -> absl::Status { return judge(tx).status(); }));
    return made;
  }
  const Signer* signer = serving_.signer();
  if (signer == nullptr) return SignerNotConfigured();
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    taken_back.clear();
    BALLAST_ASSIGN_OR_RETURN(VectorRecord record, judge(tx));
    if (const auto lacking = LacksEvidence(made.certificate()); !lacking.empty()) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "SUITE_RESULT_INCOMPLETE",
          absl::StrCat("the result says too little to judge the vector by, which stays "
                       "as it is (",
                       absl::StrJoin(lacking, ", "),
                       "); measure what is missing and certify again"));
    }
    made.set_payload(made.certificate().SerializeAsString());
    made.set_signature(signer->Sign(envelope::kCertificateType, made.payload()));
    made.set_key_id(signer->public_key().KeyId());
    *record.mutable_certificate() = made;
    record.mutable_certificate()->clear_certificate();
    record.mutable_vector()->clear_activation();
    if (made.certificate().passed()) {
      return DecideVector(tx, record, VectorDecision::kCertified, "");
    }
    BALLAST_ASSIGN_OR_RETURN(taken_back, TakeBackAttempts(tx, id, now));
    return DecideVector(tx, record, VectorDecision::kNotCertified, WhyRejected(made.certificate()));
  }));
  for (const TenantName& job : taken_back) listener_.JobChanged(job.tenant, job.id);
  listener_.WorkAdded();
  listener_.GarbageAdded();
  return made;
}

absl::StatusOr<Vector> VectorCertification::Activate(absl::Time now, const std::string& id,
                                                     const std::string& reason,
                                                     const std::string& actor) {
  if (reason.size() < kShortestReason || reason.size() > kLongestReason) {
    return FieldError(
        "reason", "ACTIVATION_REASON_INVALID",
        absl::StrCat("reason has ", reason.size(), " bytes; say in ", kShortestReason, " to ",
                     kLongestReason, " why the vector serves without a certificate"));
  }
  Vector vector;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(VectorRecord record, FindVector(tx, id, Hold::kExclusive));
    if (!NextState(record.vector().state(), VectorDecision::kActivated).has_value() ||
        record.has_certificate()) {
      return WrongState("VECTOR_NOT_CERTIFYING", record,
                        "only a CERTIFYING vector without a certificate can be activated");
    }
    admin::v1::Activation& activation = *record.mutable_vector()->mutable_activation();
    activation.set_reason(reason);
    activation.set_actor(actor);
    *activation.mutable_time() = ToTimestamp(now);
    BALLAST_RETURN_IF_ERROR(DecideVector(tx, record, VectorDecision::kActivated, ""));
    BALLAST_ASSIGN_OR_RETURN(vector, ToVector(tx, record, serving_));
    return absl::OkStatus();
  }));
  listener_.WorkAdded();
  return vector;
}

absl::StatusOr<SignedCertificate> VectorCertification::GetCertificate(const std::string& id) {
  VectorRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindVector(tx, id));
    return absl::OkStatus();
  }));
  if (!record.has_certificate()) {
    return MakeError(absl::StatusCode::kNotFound, "CERTIFICATE_NOT_FOUND",
                     absl::StrCat(record.vector().name(), " has no certificate",
                                  record.vector().has_activation()
                                      ? absl::StrCat("; it serves by an operator's word: ",
                                                     record.vector().activation().reason())
                                      : std::string("; run the red-team suite and certify it")));
  }
  SignedCertificate certificate = record.certificate();
  certificate.clear_certificate();
  const Signer* signer = serving_.signer();
  if (signer == nullptr) return SignerNotConfigured();
  const auto read = envelope::VerifyCertificate(certificate, signer->public_key());
  if (!read.ok()) {
    return MakeError(
        absl::StatusCode::kDataLoss, "CERTIFICATE_INVALID",
        absl::StrCat("the stored certificate of ", record.vector().name(),
                     " is not one that this server signed: ", read.status().message()));
  }
  *certificate.mutable_certificate() = *read;
  return certificate;
}

}  // namespace ballast::server
