// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/certificate_check.h"

#include <algorithm>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/envelope/envelope.h"
#include "common/envelope/signed_certificate.h"
#include "worker/agent/job_error.h"
#include "worker/agent/status_text.h"

namespace ballast::worker::agent {
namespace {

absl::Status Check(const ballast::worker::v1::Work& work, const PublicKey* pinned) {
  const auto& task = work.fine_tune();
  BALLAST_ASSIGN_OR_RETURN(const admin::v1::Certificate certificate,
                           pinned != nullptr
                               ? envelope::VerifyCertificate(task.certificate(), *pinned)
                               : envelope::ReadCertificate(task.certificate()));
  const auto& vector = task.vector();
  BALLAST_RETURN_IF_ERROR(envelope::CheckCertified(
      certificate, {vector.vector_id(), vector.version(), vector.ciphertext_digest(),
                    work.base_model().digest()}));
  const bool always = certificate.policy().vector_policy() != admin::v1::VECTOR_POLICY_BY_ROW;
  if (always != task.vector_always()) {
    return absl::FailedPreconditionError("the certificate is for another vector policy");
  }
  if (certificate.policy().safety_row_share() != task.safety_rows().share() ||
      certificate.policy().safety_rows_digest() != task.safety_rows().rows().digest()) {
    return absl::FailedPreconditionError("the certificate is for other safety rows");
  }
  if (certificate.policy().screen_digest() != task.screen().digest() ||
      certificate.policy().screen_action() != task.screen().action()) {
    return absl::FailedPreconditionError("the certificate is for another screen");
  }
  if (pinned == nullptr) return absl::OkStatus();
  // The reader of rows trusts the data only where their number is given.
  if (task.training_dataset().rows_accepted() < 1) {
    return absl::FailedPreconditionError("the work does not say how many rows it has");
  }
  return envelope::CheckInside(
      envelope::PlaceOf(task.job().hyperparameters(), {task.training_dataset().rows_accepted(), 1}),
      certificate.envelope(), "");
}

}  // namespace

absl::Status CheckRowsCertified(const ballast::worker::v1::Work& work, const PublicKey* pinned,
                                const envelope::RowStatistics& rows) {
  if (pinned == nullptr) return absl::OkStatus();
  const auto check = [&]() -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const admin::v1::Certificate certificate,
                             envelope::VerifyCertificate(work.fine_tune().certificate(), *pinned));
    const envelope::Place place = envelope::PlaceOf(work.fine_tune().job().hyperparameters(), rows);
    BALLAST_RETURN_IF_ERROR(envelope::CheckMinima(place, rows.rows));
    return envelope::CheckInside(place, certificate.envelope(), "");
  };
  const absl::Status status = check();
  if (status.ok()) return status;
  spdlog::error("{}: its rows are not what the certificate of vector {} is for: {}",
                work.lease().resource(), work.fine_tune().vector().vector_id(), StatusText(status));
  return ProtectionUnavailable();
}

absl::Status CheckCertificate(const ballast::worker::v1::Work& work, const PublicKey* pinned) {
  const std::string& resource = work.lease().resource();
  if (!work.fine_tune().has_certificate()) {
    if (pinned == nullptr) return absl::OkStatus();
    spdlog::error("{}: vector {} has no certificate, and this worker trains under none without",
                  resource, work.fine_tune().vector().vector_id());
    return ProtectionUnavailable();
  }
  const absl::Status status = Check(work, pinned);
  if (status.ok()) return status;
  spdlog::error("{}: the certificate of vector {} does not hold for this job: {}", resource,
                work.fine_tune().vector().vector_id(), StatusText(status));
  return ProtectionUnavailable();
}

}  // namespace ballast::worker::agent
