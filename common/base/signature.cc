// SPDX-License-Identifier: Apache-2.0
#include "common/base/signature.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kSignatureBytes = 64;
constexpr int64_t kMaxPemBytes = 16 << 10;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }
const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

Bio ReadBio(std::string_view text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

// An encrypted key must not make a server ask on its terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

}  // namespace

struct PublicKey::Handle {
  explicit Handle(EVP_PKEY* key) : key(key) {}
  ~Handle() { EVP_PKEY_free(key); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  EVP_PKEY* const key;
};

std::string PreAuthEncoding(std::string_view payload_type, std::string_view payload) {
  return absl::StrCat("DSSEv1 ", payload_type.size(), " ", View(payload_type), " ", payload.size(),
                      " ", View(payload));
}

absl::StatusOr<PublicKey> PublicKey::FromPem(std::string_view pem) {
  const Bio bio = ReadBio(pem);
  EVP_PKEY* key = PEM_read_bio_PUBKEY(bio.get(), nullptr, &NoPassphrase, nullptr);
  if (key == nullptr || EVP_PKEY_id(key) != EVP_PKEY_ED25519) {
    EVP_PKEY_free(key);
    return MakeError(absl::StatusCode::kInvalidArgument, "PUBLIC_KEY_INVALID",
                     "this is no Ed25519 public key in PEM; write one with: openssl pkey -in "
                     "PRIVATE_KEY -pubout");
  }
  return PublicKey(std::make_shared<const Handle>(key));
}

absl::StatusOr<PublicKey> PublicKey::FromFile(const std::string& path) {
  const auto pem = ReadFile(path, kMaxPemBytes);
  if (absl::IsNotFound(pem.status())) {
    return MakeError(absl::StatusCode::kNotFound, "PUBLIC_KEY_MISSING",
                     absl::StrCat("the public key file ", path,
                                  " does not exist; give the signer's public key (PEM)"),
                     {{"path", path}});
  }
  BALLAST_RETURN_IF_ERROR(pem.status());
  auto key = FromPem(*pem);
  if (!key.ok()) return Annotate(key.status(), path);
  return key;
}

std::string PublicKey::ToPem() const {
  const Bio bio(BIO_new(BIO_s_mem()), &BIO_free);
  if (PEM_write_bio_PUBKEY(bio.get(), handle_->key) != 1) std::abort();  // out of memory
  return TextOf(bio.get());
}

std::string PublicKey::KeyId() const {
  std::array<unsigned char, kKeyBytes> raw{};
  size_t size = raw.size();
  if (EVP_PKEY_get_raw_public_key(handle_->key, raw.data(), &size) != 1) std::abort();
  return DigestOf(std::string_view(reinterpret_cast<const char*>(raw.data()), size));
}

bool PublicKey::Verify(std::string_view payload_type, std::string_view payload,
                       std::string_view signature) const {
  if (signature.size() != kSignatureBytes) return false;
  const std::string message = PreAuthEncoding(payload_type, payload);
  const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  return EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, handle_->key) == 1 &&
         EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(message),
                          message.size()) == 1;
}

absl::StatusOr<PrivateKey> PrivateKey::FromPem(std::string_view pem) {
  const Bio bio = ReadBio(pem);
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassphrase, nullptr);
  if (key == nullptr || EVP_PKEY_id(key) != EVP_PKEY_ED25519) {
    EVP_PKEY_free(key);
    return MakeError(absl::StatusCode::kInvalidArgument, "PRIVATE_KEY_INVALID",
                     "this is no Ed25519 private key in PEM without a passphrase; write one with: "
                     "openssl genpkey -algorithm ed25519");
  }
  return PrivateKey(std::make_shared<const PublicKey::Handle>(key));
}

PrivateKey PrivateKey::Generate() {
  EVP_PKEY* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  // Without randomness no key can be made; going on would be worse than stopping.
  if (key == nullptr) std::abort();
  return PrivateKey(std::make_shared<const PublicKey::Handle>(key));
}

std::string PrivateKey::ToPem() const {
  const Bio bio(BIO_new(BIO_s_secmem()), &BIO_free);
  if (PEM_write_bio_PrivateKey(bio.get(), handle_->key, nullptr, nullptr, 0, nullptr, nullptr) !=
      1) {
    std::abort();  // out of memory
  }
  return TextOf(bio.get());
}

std::string PrivateKey::Sign(std::string_view payload_type, std::string_view payload) const {
  const std::string message = PreAuthEncoding(payload_type, payload);
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, handle_->key) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     Bytes(message), message.size()) != 1 ||
      size != kSignatureBytes) {
    std::abort();  // out of memory: Ed25519 has no other failure
  }
  return signature;
}

}  // namespace ballast
