// SPDX-License-Identifier: Apache-2.0
// AES-256-GCM over OpenSSL's EVP, from and to buffers that the caller owns, so that a secret never
// passes through ordinary memory.
#ifndef BALLAST_WORKER_VAULT_AEAD_H_
#define BALLAST_WORKER_VAULT_AEAD_H_

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"

namespace ballast::worker::vault {

inline constexpr size_t kKeyBytes = 32;
inline constexpr size_t kNonceBytes = 12;
inline constexpr size_t kTagBytes = 16;

// Encrypts `plaintext` to `ciphertext` (as many bytes) and writes kTagBytes to `tag`. `nonce` must
// be fresh under `key`. INTERNAL (VAULT_CRYPTO_FAILED) when OpenSSL refuses.
absl::Status AeadSeal(std::string_view key, std::string_view nonce,
                      std::string_view additional_data, std::string_view plaintext,
                      char* ciphertext, char* tag);

// Decrypts to `plaintext` (as many bytes as `ciphertext`). False when key, nonce, additional data,
// ciphertext or tag is not what was sealed; `plaintext` is zeroed then.
bool AeadOpen(std::string_view key, std::string_view nonce, std::string_view additional_data,
              std::string_view ciphertext, std::string_view tag, char* plaintext);

// Fills `out` from the system's random source. INTERNAL (VAULT_CRYPTO_FAILED).
absl::Status RandomBytes(char* out, size_t size);

}  // namespace ballast::worker::vault

#endif  // BALLAST_WORKER_VAULT_AEAD_H_
