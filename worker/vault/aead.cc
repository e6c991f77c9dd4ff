// SPDX-License-Identifier: Apache-2.0
#include "worker/vault/aead.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>

#include "common/base/error.h"

namespace ballast::worker::vault {
namespace {

struct ContextFree {
  void operator()(EVP_CIPHER_CTX* context) const {
    EVP_CIPHER_CTX_free(context);
  }  // zeroes the key
};
using ContextPtr = std::unique_ptr<EVP_CIPHER_CTX, ContextFree>;

const unsigned char* Bytes(std::string_view bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

unsigned char* Bytes(char* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

// EVP takes int lengths; vectors may be larger than 2 GiB in pieces.
constexpr size_t kPieceBytes = size_t{1} << 30;

template <typename Update>
bool InPieces(std::string_view input, char* output, const Update& update) {
  for (size_t done = 0; done < input.size(); done += kPieceBytes) {
    const auto piece = static_cast<int>(std::min(kPieceBytes, input.size() - done));
    int written = 0;
    char* out = output == nullptr ? nullptr : output + done;
    if (update(out == nullptr ? nullptr : Bytes(out), &written, Bytes(input) + done, piece) != 1) {
      return false;
    }
  }
  return true;
}

absl::Status CryptoError() {
  return MakeError(
      absl::StatusCode::kInternal, "VAULT_CRYPTO_FAILED",
      "OpenSSL refused an operation of the vault; check that its AES-256-GCM and random "
      "source work on this machine");
}

}  // namespace

absl::Status AeadSeal(std::string_view key, std::string_view nonce,
                      std::string_view additional_data, std::string_view plaintext,
                      char* ciphertext, char* tag) {
  if (key.size() != kKeyBytes || nonce.size() != kNonceBytes) return CryptoError();
  ContextPtr context(EVP_CIPHER_CTX_new());
  if (context == nullptr) return CryptoError();
  const auto update = [&](unsigned char* out, int* written, const unsigned char* in, int size) {
    return EVP_EncryptUpdate(context.get(), out, written, in, size);
  };
  int written = 0;
  unsigned char rest[kTagBytes];
  if (EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) !=
          1 ||
      !InPieces(additional_data, nullptr, update) || !InPieces(plaintext, ciphertext, update) ||
      EVP_EncryptFinal_ex(context.get(), rest, &written) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag) != 1) {
    return CryptoError();
  }
  return absl::OkStatus();
}

bool AeadOpen(std::string_view key, std::string_view nonce, std::string_view additional_data,
              std::string_view ciphertext, std::string_view tag, char* plaintext) {
  if (key.size() != kKeyBytes || nonce.size() != kNonceBytes || tag.size() != kTagBytes)
    return false;
  ContextPtr context(EVP_CIPHER_CTX_new());
  if (context == nullptr) return false;
  const auto update = [&](unsigned char* out, int* written, const unsigned char* in, int size) {
    return EVP_DecryptUpdate(context.get(), out, written, in, size);
  };
  int written = 0;
  unsigned char rest[kTagBytes];
  if (EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) ==
          1 &&
      InPieces(additional_data, nullptr, update) && InPieces(ciphertext, plaintext, update) &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes,
                          const_cast<char*>(tag.data())) == 1 &&
      EVP_DecryptFinal_ex(context.get(), rest, &written) == 1) {
    return true;
  }
  OPENSSL_cleanse(plaintext, ciphertext.size());  // never hand out bytes that failed the check
  return false;
}

absl::Status RandomBytes(char* out, size_t size) {
  return RAND_bytes(Bytes(out), static_cast<int>(size)) == 1 ? absl::OkStatus() : CryptoError();
}

}  // namespace ballast::worker::vault
