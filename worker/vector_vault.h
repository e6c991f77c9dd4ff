// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_VECTOR_VAULT_H_
#define BALLAST_WORKER_VECTOR_VAULT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/secret.h"

namespace ballast::worker {

// What a sealed vector is bound to; the additional data of its authenticated encryption.
struct VectorBinding {
  std::string vector_id;  // "vec-..."
  int version = 1;
  std::string base_digest;  // "sha256:..." of the base model
};

// Seals and opens security vectors (S1: implemented in worker/vault, linked into the worker only).
// Thread safety: thread-safe.
class VectorVault {
 public:
  virtual ~VectorVault() = default;

  // Ciphertext of `plaintext`, with a fresh data key wrapped by the key provider's key.
  virtual absl::StatusOr<std::string> Seal(const SecretBuffer& plaintext,
                                           const VectorBinding& binding) = 0;

  // FAILED_PRECONDITION VAULT_KEY_WRONG when the key cannot open it; DATA_LOSS VECTOR_CORRUPT when
  // the bytes are no sealed vector or were changed, or `binding` is not the one it was sealed with.
  virtual absl::StatusOr<SecretBuffer> Unseal(std::string_view ciphertext,
                                              const VectorBinding& binding) = 0;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_VECTOR_VAULT_H_
