// SPDX-License-Identifier: Apache-2.0
#include "worker/vault/envelope_vault.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "worker/vault/aead.h"

namespace ballast::worker::vault {
namespace {

constexpr std::string_view kMagic("BALLSTV\x01", 8);
constexpr size_t kWrappedAt = 8 + kKeyIdBytes;
constexpr size_t kNonceAt = kWrappedAt + kWrappedKeyBytes;
constexpr size_t kSizeAt = kNonceAt + kNonceBytes;
constexpr size_t kHeaderBytes = kSizeAt + 8;

std::string LittleEndian64(uint64_t value) {
  std::string bytes(8, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(value & 0xff);
    value >>= 8;
  }
  return bytes;
}

void AppendPart(std::string& out, std::string_view part) {
  out += LittleEndian64(part.size());
  out += part;
}

std::string AdditionalData(std::string_view header, const VectorBinding& binding) {
  std::string data;
  AppendPart(data, header);
  AppendPart(data, binding.vector_id);
  AppendPart(data, LittleEndian64(static_cast<uint64_t>(binding.version)));
  AppendPart(data, binding.base_digest);
  return data;
}

absl::Status Corrupt(std::string_view problem) {
  return MakeError(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT", problem);
}

}  // namespace

absl::StatusOr<std::string> EnvelopeVault::Seal(const SecretBuffer& plaintext,
                                                const VectorBinding& binding) {
  SecretBuffer data_key(kKeyBytes);
  BALLAST_RETURN_IF_ERROR(RandomBytes(data_key.data(), data_key.size()));
  std::string envelope;
  envelope.reserve(kHeaderBytes + plaintext.size() + kTagBytes);
  envelope += kMagic;
  envelope += keys_->KeyId();
  BALLAST_ASSIGN_OR_RETURN(const std::string wrapped,
                           keys_->Wrap(data_key, AdditionalData(envelope, binding)));
  envelope += wrapped;
  char nonce[kNonceBytes];
  BALLAST_RETURN_IF_ERROR(RandomBytes(nonce, sizeof(nonce)));
  envelope.append(nonce, sizeof(nonce));
  envelope += LittleEndian64(plaintext.size());
  const std::string additional = AdditionalData(envelope, binding);
  envelope.resize(kHeaderBytes + plaintext.size() + kTagBytes);
  BALLAST_RETURN_IF_ERROR(AeadSeal(data_key.view(), {nonce, sizeof(nonce)}, additional,
                                   plaintext.view(), envelope.data() + kHeaderBytes,
                                   envelope.data() + kHeaderBytes + plaintext.size()));
  return envelope;
}

absl::StatusOr<SecretBuffer> EnvelopeVault::Unseal(std::string_view ciphertext,
                                                   const VectorBinding& binding) {
  if (ciphertext.size() < kHeaderBytes + kTagBytes ||
      ciphertext.substr(0, kMagic.size()) != kMagic) {
    return Corrupt("these bytes are no sealed vector of a version this worker knows");
  }
  const size_t size = ciphertext.size() - kHeaderBytes - kTagBytes;
  if (ciphertext.substr(kSizeAt, 8) != LittleEndian64(size)) {
    return Corrupt("the sealed bytes are truncated, or something was appended");
  }
  BALLAST_ASSIGN_OR_RETURN(
      const SecretBuffer data_key,
      keys_->Unwrap(ciphertext.substr(kMagic.size(), kKeyIdBytes),
                    ciphertext.substr(kWrappedAt, kWrappedKeyBytes),
                    AdditionalData(ciphertext.substr(0, kWrappedAt), binding)));
  SecretBuffer plaintext(size);
  if (!AeadOpen(data_key.view(), ciphertext.substr(kNonceAt, kNonceBytes),
                AdditionalData(ciphertext.substr(0, kHeaderBytes), binding),
                ciphertext.substr(kHeaderBytes, size), ciphertext.substr(kHeaderBytes + size),
                plaintext.data())) {
    return Corrupt("the sealed bytes were changed");
  }
  return plaintext;
}

}  // namespace ballast::worker::vault
