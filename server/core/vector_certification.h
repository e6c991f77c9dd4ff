// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_VECTOR_CERTIFICATION_H_
#define BALLAST_SERVER_CORE_VECTOR_CERTIFICATION_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/admin_service.pb.h"
#include "ballast/admin/v1/certificate.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// How a trained vector comes to serve: by a certificate, or by an operator's word. Failures are
// those of ballast.admin.v1.AdminService. Thread safety: thread-safe.
class VectorCertification {
 public:
  // All must outlive the object.
  VectorCertification(JobStore& store, ChangeListener& listener, const ServingVectors& serving)
      : store_(store), listener_(listener), serving_(serving) {}

  // Judges `result`; unless `validate_only`, signs and stores the certificate and makes the vector
  // ACTIVE or REJECTED by it. Jobs that run under a vector that is REJECTED wait again. A result by
  // which it is neither, since too little was measured, is SUITE_RESULT_INCOMPLETE.
  absl::StatusOr<admin::v1::SignedCertificate> Certify(absl::Time now, const std::string& id,
                                                       const admin::v1::SuiteResult& result,
                                                       bool validate_only);

  // `actor` is the label of the operator's key.
  absl::StatusOr<admin::v1::Vector> Activate(absl::Time now, const std::string& id,
                                             const std::string& reason, const std::string& actor);

  absl::StatusOr<admin::v1::SignedCertificate> GetCertificate(const std::string& id);

 private:
  JobStore& store_;
  ChangeListener& listener_;
  const ServingVectors& serving_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_VECTOR_CERTIFICATION_H_
