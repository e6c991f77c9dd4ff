// SPDX-License-Identifier: Apache-2.0
#include "common/base/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast {
namespace {

absl::StatusOr<size_t> ReadOpen(int fd, const std::string& path, const SecretFileWords& words,
                                char* buffer, size_t capacity) {
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return SecretFileInvalid(absl::StatusCode::kInvalidArgument, path, words,
                             "is not a regular file");
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return SecretFileInvalid(
        absl::StatusCode::kPermissionDenied, path, words,
        "can be read or written by group or others; run chmod 600 on it, and make a new "
        "key if somebody may have read this one");
  }
  size_t size = 0;
  while (size < capacity) {
    const ssize_t n = read(fd, buffer + size, capacity - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return SecretFileInvalid(absl::StatusCode::kPermissionDenied, path, words,
                               absl::StrCat("cannot be read: ", std::strerror(errno)));
    }
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  return size;
}

}  // namespace

absl::Status SecretFileInvalid(absl::StatusCode code, const std::string& path,
                               const SecretFileWords& words, const std::string& problem) {
  return MakeError(code, words.invalid_reason,
                   absl::StrCat("the ", words.what, " ", path, " ", problem), {{"path", path}});
}

absl::StatusOr<size_t> ReadSecretFile(const std::string& path, const SecretFileWords& words,
                                      char* buffer, size_t capacity) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return MakeError(
          absl::StatusCode::kNotFound, words.missing_reason,
          absl::StrCat("the ", words.what, " ", path, " does not exist; ", words.missing_hint),
          {{"path", path}});
    }
    return SecretFileInvalid(absl::StatusCode::kPermissionDenied, path, words,
                             absl::StrCat("cannot be opened: ", std::strerror(errno)));
  }
  const auto size = ReadOpen(fd, path, words, buffer, capacity);
  close(fd);
  return size;
}

}  // namespace ballast
