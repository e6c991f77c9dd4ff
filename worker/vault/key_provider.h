// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_VAULT_KEY_PROVIDER_H_
#define BALLAST_WORKER_VAULT_KEY_PROVIDER_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/secret.h"

namespace ballast::worker::vault {

// Bytes of a key's fingerprint.
inline constexpr size_t kKeyIdBytes = 16;
// Bytes of a wrapped data key: nonce, 32 encrypted bytes, tag.
inline constexpr size_t kWrappedKeyBytes = 12 + 32 + 16;

// Wraps data keys with a key that stays inside: a file's now, a key service's where there is one.
// Thread safety: implementations are thread-safe.
class KeyProvider {
 public:
  virtual ~KeyProvider() = default;

  // Fingerprint of the current wrapping key, kKeyIdBytes; tells nothing about the key.
  virtual std::string KeyId() const = 0;

  // `data_key` (32 bytes) encrypted and bound to `additional_data`, kWrappedKeyBytes.
  virtual absl::StatusOr<std::string> Wrap(const SecretBuffer& data_key,
                                           std::string_view additional_data) = 0;

  // The data key. FAILED_PRECONDITION (VAULT_KEY_WRONG) when `key_id` is another key's; DATA_LOSS
  // (VECTOR_CORRUPT) when the wrapped bytes or `additional_data` were changed.
  virtual absl::StatusOr<SecretBuffer> Unwrap(std::string_view key_id, std::string_view wrapped,
                                              std::string_view additional_data) = 0;
};

}  // namespace ballast::worker::vault

#endif  // BALLAST_WORKER_VAULT_KEY_PROVIDER_H_
