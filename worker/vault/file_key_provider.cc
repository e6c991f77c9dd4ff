// SPDX-License-Identifier: Apache-2.0
#include "worker/vault/file_key_provider.h"

#include <openssl/sha.h>

#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/secret_file.h"
#include "common/base/status_macros.h"
#include "worker/vault/aead.h"

namespace ballast::worker::vault {
namespace {

constexpr size_t kHexDigits = 2 * kKeyBytes;
// Room for the digits, a line end, and one byte more to notice a file that is too long.
constexpr size_t kLongestFile = kHexDigits + 8;

int HexValue(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

bool IsSpace(char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; }

// A fingerprint in a domain of its own, so that it equals no other use of SHA-256 on the key.
std::string Fingerprint(const SecretBuffer& key) {
  static constexpr std::string_view kDomain = "ballast vault key id v1:";
  SecretBuffer input(kDomain.size() + key.size());
  std::memcpy(input.data(), kDomain.data(), kDomain.size());
  std::memcpy(input.data() + kDomain.size(), key.data(), key.size());
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(input.data()), input.size(), digest);
  return std::string(reinterpret_cast<const char*>(digest), kKeyIdBytes);
}

}  // namespace

FileKeyProvider::FileKeyProvider(SecretBuffer key)
    : key_(std::move(key)), key_id_(Fingerprint(key_)) {}

absl::StatusOr<std::unique_ptr<FileKeyProvider>> FileKeyProvider::Open(const std::string& path) {
  const SecretFileWords words = {
      "vault key file", "VAULT_KEY_FILE_MISSING", "VAULT_KEY_FILE_INVALID",
      "set vault_key_file to a file with the 64 hex digits of the key that seals vectors"};
  SecretBuffer text(kLongestFile);
  BALLAST_ASSIGN_OR_RETURN(size_t size, ReadSecretFile(path, words, text.data(), kLongestFile));
  while (size > 0 && IsSpace(text.data()[size - 1])) --size;
  SecretBuffer key(kKeyBytes);
  bool hex = size == kHexDigits;
  for (size_t i = 0; hex && i < kKeyBytes; ++i) {
    const int high = HexValue(text.data()[2 * i]);
    const int low = HexValue(text.data()[2 * i + 1]);
    hex = high >= 0 && low >= 0;
    key.data()[i] = static_cast<char>((high << 4) | (low & 15));
  }
  if (!hex) {
    return SecretFileInvalid(
        absl::StatusCode::kInvalidArgument, path, words,
        "does not hold exactly 64 hex digits (256 bits); write one with: openssl rand -hex 32");
  }
  return std::make_unique<FileKeyProvider>(std::move(key));
}

absl::StatusOr<std::string> FileKeyProvider::Wrap(const SecretBuffer& data_key,
                                                  std::string_view additional_data) {
  std::string wrapped(kNonceBytes + data_key.size() + kTagBytes, '\0');
  BALLAST_RETURN_IF_ERROR(RandomBytes(wrapped.data(), kNonceBytes));
  BALLAST_RETURN_IF_ERROR(AeadSeal(key_.view(), std::string_view(wrapped.data(), kNonceBytes),
                                   additional_data, data_key.view(), wrapped.data() + kNonceBytes,
                                   wrapped.data() + kNonceBytes + data_key.size()));
  return wrapped;
}

absl::StatusOr<SecretBuffer> FileKeyProvider::Unwrap(std::string_view key_id,
                                                     std::string_view wrapped,
                                                     std::string_view additional_data) {
  if (key_id != key_id_) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "VAULT_KEY_WRONG",
        "it was sealed with another key than vault_key_file holds; give every worker of "
        "the service the same key");
  }
  SecretBuffer data_key(kKeyBytes);
  if (wrapped.size() != kWrappedKeyBytes ||
      !AeadOpen(key_.view(), wrapped.substr(0, kNonceBytes), additional_data,
                wrapped.substr(kNonceBytes, kKeyBytes), wrapped.substr(kNonceBytes + kKeyBytes),
                data_key.data())) {
    return MakeError(
        absl::StatusCode::kDataLoss, "VECTOR_CORRUPT",
        "the wrapped key was changed, or belongs to another id, version or base model");
  }
  return data_key;
}

}  // namespace ballast::worker::vault
