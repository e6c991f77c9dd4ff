// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_VAULT_FILE_KEY_PROVIDER_H_
#define BALLAST_WORKER_VAULT_FILE_KEY_PROVIDER_H_

#include <memory>
#include <string>

#include "worker/vault/key_provider.h"

namespace ballast::worker::vault {

// A wrapping key from a file of 64 hex digits, which only the worker's user may read. The key is
// read once and kept in a SecretBuffer.
class FileKeyProvider : public KeyProvider {
 public:
  // NOT_FOUND (VAULT_KEY_FILE_MISSING); PERMISSION_DENIED (VAULT_KEY_FILE_INVALID) when the file
  // cannot be read or group or others can; INVALID_ARGUMENT (VAULT_KEY_FILE_INVALID) when it is not
  // 64 hex digits, white space at the end aside.
  static absl::StatusOr<std::unique_ptr<FileKeyProvider>> Open(const std::string& path);

  // From 32 key bytes; for tests and for Open.
  explicit FileKeyProvider(SecretBuffer key);

  std::string KeyId() const override { return key_id_; }
  absl::StatusOr<std::string> Wrap(const SecretBuffer& data_key,
                                   std::string_view additional_data) override;
  absl::StatusOr<SecretBuffer> Unwrap(std::string_view key_id, std::string_view wrapped,
                                      std::string_view additional_data) override;

 private:
  const SecretBuffer key_;
  const std::string key_id_;
};

}  // namespace ballast::worker::vault

#endif  // BALLAST_WORKER_VAULT_FILE_KEY_PROVIDER_H_
