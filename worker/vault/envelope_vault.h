// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_VAULT_ENVELOPE_VAULT_H_
#define BALLAST_WORKER_VAULT_ENVELOPE_VAULT_H_

#include <memory>
#include <string>
#include <string_view>

#include "worker/vault/key_provider.h"
#include "worker/vector_vault.h"

namespace ballast::worker::vault {

// The VectorVault of the worker: envelope encryption. Layout of the sealed bytes, version 1:
//
//   offset  bytes
//        0      8  "BALLSTV\x01": magic and version
//        8     16  key id: fingerprint of the wrapping key
//       24     60  data key, wrapped: nonce, 32 encrypted bytes, tag
//       84     12  nonce
//       96      8  size of the plaintext, little-endian
//      104      n  AES-256-GCM ciphertext
//    104+n     16  tag
//
// The wrapped key is bound to the first 24 bytes and the binding; the ciphertext to the first 104
// bytes and the binding. The binding is written with the length of each part before it, so that two
// bindings never have the same bytes. Every bit of the envelope is thus authenticated.
//
// Thread safety: thread-safe.
class EnvelopeVault : public VectorVault {
 public:
  explicit EnvelopeVault(std::unique_ptr<KeyProvider> keys) : keys_(std::move(keys)) {}

  absl::StatusOr<std::string> Seal(const SecretBuffer& plaintext,
                                   const VectorBinding& binding) override;
  absl::StatusOr<SecretBuffer> Unseal(std::string_view ciphertext,
                                      const VectorBinding& binding) override;

 private:
  const std::unique_ptr<KeyProvider> keys_;
};

}  // namespace ballast::worker::vault

#endif  // BALLAST_WORKER_VAULT_ENVELOPE_VAULT_H_
