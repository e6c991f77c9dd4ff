// SPDX-License-Identifier: Apache-2.0
#include "server/auth/file_signer.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

constexpr size_t kLongestFile = 4096;
constexpr char kMakeOne[] = "make one with: openssl genpkey -algorithm ed25519 -out FILE";

absl::Status Invalid(absl::StatusCode code, const std::string& path, const std::string& problem) {
  return MakeError(code, "CERTIFICATE_KEY_FILE_INVALID",
                   absl::StrCat("the certificate key file ", path, " ", problem), {{"path", path}});
}

// Reads the file into `text` and checks who may read it. Its size.
absl::StatusOr<size_t> Read(int fd, const std::string& path, std::array<char, kLongestFile>& text) {
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return Invalid(absl::StatusCode::kInvalidArgument, path, "is not a regular file");
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Invalid(absl::StatusCode::kPermissionDenied, path,
                   "can be read or written by group or others; run chmod 600 on it, and make a new "
                   "key if somebody may have read this one");
  }
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = read(fd, text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return Invalid(absl::StatusCode::kPermissionDenied, path,
                     absl::StrCat("cannot be read: ", std::strerror(errno)));
    }
    if (n == 0) return size;
    size += static_cast<size_t>(n);
  }
  return Invalid(absl::StatusCode::kInvalidArgument, path,
                 absl::StrCat("is too long for a key; ", kMakeOne));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileSigner>> FileSigner::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return MakeError(absl::StatusCode::kNotFound, "CERTIFICATE_KEY_FILE_MISSING",
                       absl::StrCat("the certificate key file ", path, " does not exist; ",
                                    kMakeOne, ", and chmod 600 it"),
                       {{"path", path}});
    }
    return Invalid(absl::StatusCode::kPermissionDenied, path,
                   absl::StrCat("cannot be opened: ", std::strerror(errno)));
  }
  std::array<char, kLongestFile> text{};
  const auto size = Read(fd, path, text);
  close(fd);
  BALLAST_RETURN_IF_ERROR(size.status());
  const auto key = PrivateKey::FromPem(std::string_view(text.data(), *size));
  OPENSSL_cleanse(text.data(), text.size());
  if (!key.ok()) {
    return Invalid(
        absl::StatusCode::kInvalidArgument, path,
        absl::StrCat("holds no Ed25519 private key in PEM without a passphrase; ", kMakeOne));
  }
  return std::unique_ptr<FileSigner>(new FileSigner(*key));
}

}  // namespace ballast::server
