// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_SERVING_VECTOR_H_
#define BALLAST_SERVER_CORE_SERVING_VECTOR_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/envelope.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/signer.h"

namespace ballast::server {

// A vector that jobs may run under, and where they may lie.
struct ServingVector {
  VectorRecord record;
  bool certified = false;
  v1::Envelope envelope;  // the certificate's, or the conservative one
};

// Decides which vector serves a base. What is stored is believed only as far as its signature goes:
// a certificate is verified each time that it is read, so that one that was slipped into the
// database serves nothing. Thread safety: thread-safe.
class ServingVectors {
 public:
  // `signer` may be null: certificates then cannot be verified, and certified vectors do not serve.
  // Must outlive the object otherwise.
  explicit ServingVectors(const Signer* signer) : signer_(signer) {}

  // The newest vector of `base` for which Judge is OK, if there is one.
  absl::StatusOr<std::optional<ServingVector>> Find(Transaction& tx,
                                                    const BaseModelRecord& base) const;

  // Whether `record` may serve `base`, and how. FAILED_PRECONDITION or INVALID_ARGUMENT with the
  // reason why not, for operators: VECTOR_NOT_ACTIVE, VECTOR_OF_ANOTHER_BASE, VECTOR_NOT_CERTIFIED,
  // SIGNER_NOT_CONFIGURED, POLICY_NOT_CERTIFIED, ENVELOPE_INVALID, and those of
  // common/envelope/signed_certificate.h.
  absl::StatusOr<ServingVector> Judge(const VectorRecord& record,
                                      const BaseModelRecord& base) const;

  const Signer* signer() const { return signer_; }

 private:
  const Signer* const signer_;
};

// The base's limits with the envelope of the vector that serves it, if one does.
v1::TrainingLimits LimitsUnder(const BaseModelRecord& base,
                               const std::optional<ServingVector>& serving);

// FAILED_PRECONDITION (SIGNER_NOT_CONFIGURED).
absl::Status SignerNotConfigured();

// The policy of a base with the default in place of what is unset.
admin::v1::VectorPolicy PolicyOf(const BaseModelRecord& base);
// All that protects jobs of a base.
admin::v1::DefencePolicy DefencePolicyOf(const BaseModelRecord& base);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_SERVING_VECTOR_H_
