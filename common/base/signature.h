// SPDX-License-Identifier: Apache-2.0
// Ed25519 signatures (RFC 8032) over OpenSSL. What is signed is the pre-authentication encoding of
// DSSE v1, which binds the bytes to their type: a signature of one kind of document is none of
// another.
#ifndef BALLAST_COMMON_BASE_SIGNATURE_H_
#define BALLAST_COMMON_BASE_SIGNATURE_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast {

// "DSSEv1 SP len(type) SP type SP len(payload) SP payload", lengths in decimal bytes.
std::string PreAuthEncoding(std::string_view payload_type, std::string_view payload);

// The public half of a key. Copyable. Thread safety: thread-safe.
class PublicKey {
 public:
  // From "-----BEGIN PUBLIC KEY-----". INVALID_ARGUMENT (PUBLIC_KEY_INVALID): no PEM, or a key of
  // another algorithm.
  static absl::StatusOr<PublicKey> FromPem(std::string_view pem);
  // The same from a file. NOT_FOUND (PUBLIC_KEY_MISSING) and the failures of FromPem, with the
  // path.
  static absl::StatusOr<PublicKey> FromFile(const std::string& path);

  std::string ToPem() const;
  // "sha256:<hex>" of the 32 bytes of the key.
  std::string KeyId() const;
  bool Verify(std::string_view payload_type, std::string_view payload,
              std::string_view signature) const;

 private:
  friend class PrivateKey;
  struct Handle;
  explicit PublicKey(std::shared_ptr<const Handle> handle) : handle_(std::move(handle)) {}
  std::shared_ptr<const Handle> handle_;
};

// A key that signs. Thread safety: thread-safe.
class PrivateKey {
 public:
  // From "-----BEGIN PRIVATE KEY-----" without a passphrase, as `openssl genpkey -algorithm
  // ed25519` writes it. INVALID_ARGUMENT (PRIVATE_KEY_INVALID). The text of a key is never in a
  // message.
  static absl::StatusOr<PrivateKey> FromPem(std::string_view pem);
  // A new one, from the system's randomness.
  static PrivateKey Generate();

  std::string ToPem() const;
  PublicKey public_key() const { return PublicKey(handle_); }
  std::string Sign(std::string_view payload_type, std::string_view payload) const;

 private:
  explicit PrivateKey(std::shared_ptr<const PublicKey::Handle> handle)
      : handle_(std::move(handle)) {}
  std::shared_ptr<const PublicKey::Handle> handle_;
};

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_SIGNATURE_H_
