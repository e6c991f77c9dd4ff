// SPDX-License-Identifier: Apache-2.0
#include "server/auth/file_signer.h"

#include <openssl/crypto.h>

#include <array>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/secret_file.h"

namespace ballast::server {

absl::StatusOr<std::unique_ptr<FileSigner>> FileSigner::Open(const std::string& path) {
  static constexpr char kMakeOne[] = "make one with: openssl genpkey -algorithm ed25519 -out FILE";
  const SecretFileWords words = {"certificate key file", "CERTIFICATE_KEY_FILE_MISSING",
                                 "CERTIFICATE_KEY_FILE_INVALID",
                                 absl::StrCat(kMakeOne, ", and chmod 600 it")};
  std::array<char, 4096> text{};
  const auto size = ReadSecretFile(path, words, text.data(), text.size());
  if (!size.ok()) {
    OPENSSL_cleanse(text.data(), text.size());
    return size.status();
  }
  const auto key = PrivateKey::FromPem(std::string_view(text.data(), *size));
  OPENSSL_cleanse(text.data(), text.size());
  if (*size == text.size()) {
    return SecretFileInvalid(absl::StatusCode::kInvalidArgument, path, words,
                             absl::StrCat("is too long for a key; ", kMakeOne));
  }
  if (!key.ok()) {
    return SecretFileInvalid(
        absl::StatusCode::kInvalidArgument, path, words,
        absl::StrCat("holds no Ed25519 private key in PEM without a passphrase; ", kMakeOne));
  }
  return std::unique_ptr<FileSigner>(new FileSigner(*key));
}

}  // namespace ballast::server
