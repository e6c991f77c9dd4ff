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

// How the jobs of a base run: under a vector, or under none where the base is unprotected.
struct Protection {
  std::optional<ServingVector> vector;

  std::string vector_id() const { return vector.has_value() ? vector->record.id() : ""; }
};

// Decides what protects the jobs of a base. What is stored is believed only as far as its signature
// goes: a certificate is verified each time that it is read, so that one that was slipped into the
// database serves nothing. Thread safety: thread-safe.
class ServingVectors {
 public:
  // `signer` may be null: certificates then cannot be verified, and certified vectors do not serve.
  // Must outlive the object otherwise. `allow_unprotected`: whether jobs of unprotected bases run.
  explicit ServingVectors(const Signer* signer, bool allow_unprotected = false)
      : signer_(signer), allow_unprotected_(allow_unprotected) {}

  // The newest vector of `base` for which Judge is OK; none where the base is unprotected. Nothing
  // where no job may run. A vector without certificate does not serve in place of a newer one with
  // a certificate that does not hold (for other safety rows, say).
  absl::StatusOr<std::optional<Protection>> Find(Transaction& tx,
                                                 const BaseModelRecord& base) const;

  // Whether `record` may serve `base`, and how. FAILED_PRECONDITION or INVALID_ARGUMENT with the
  // reason why not, for operators: VECTOR_NOT_ACTIVE, VECTOR_OF_ANOTHER_BASE, VECTOR_NOT_CERTIFIED,
  // SIGNER_NOT_CONFIGURED, POLICY_NOT_CERTIFIED, ENVELOPE_INVALID, and those of
  // common/envelope/signed_certificate.h.
  absl::StatusOr<ServingVector> Judge(const VectorRecord& record,
                                      const BaseModelRecord& base) const;

  const Signer* signer() const { return signer_; }
  bool allow_unprotected() const { return allow_unprotected_; }

 private:
  const Signer* const signer_;
  const bool allow_unprotected_;
};

// The base's limits with the envelope of the vector that serves it, if one does.
v1::TrainingLimits LimitsUnder(const BaseModelRecord& base,
                               const std::optional<Protection>& protection);

// FAILED_PRECONDITION (UNPROTECTED_NOT_ALLOWED).
absl::Status UnprotectedNotAllowed();

// FAILED_PRECONDITION (SIGNER_NOT_CONFIGURED).
absl::Status SignerNotConfigured();

// The policy of a base with the default in place of what is unset.
admin::v1::VectorPolicy PolicyOf(const BaseModelRecord& base);
// All that protects jobs of a base.
admin::v1::DefencePolicy DefencePolicyOf(const BaseModelRecord& base);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_SERVING_VECTOR_H_
