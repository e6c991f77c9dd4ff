// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_AUTH_FILE_SIGNER_H_
#define BALLAST_SERVER_AUTH_FILE_SIGNER_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/core/signer.h"

namespace ballast::server {

// Signs with an Ed25519 key from a file that only the server's user may read. The file is read
// once.
class FileSigner : public Signer {
 public:
  // NOT_FOUND (CERTIFICATE_KEY_FILE_MISSING); PERMISSION_DENIED (CERTIFICATE_KEY_FILE_INVALID) when
  // the file cannot be read or group or others can; INVALID_ARGUMENT (CERTIFICATE_KEY_FILE_INVALID)
  // when it holds no Ed25519 private key in PEM. Each says how to put it right.
  static absl::StatusOr<std::unique_ptr<FileSigner>> Open(const std::string& path);

  std::string Sign(std::string_view payload_type, std::string_view payload) const override {
    return key_.Sign(payload_type, payload);
  }
  const PublicKey& public_key() const override { return public_key_; }

 private:
  explicit FileSigner(PrivateKey key) : key_(std::move(key)), public_key_(key_.public_key()) {}

  const PrivateKey key_;
  const PublicKey public_key_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_AUTH_FILE_SIGNER_H_
