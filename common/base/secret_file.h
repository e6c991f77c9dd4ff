// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_SECRET_FILE_H_
#define BALLAST_COMMON_BASE_SECRET_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast {

// What the errors of a key file say.
struct SecretFileWords {
  std::string what;            // "vault key file"
  const char* missing_reason;  // of NOT_FOUND
  const char* invalid_reason;  // of everything else
  std::string missing_hint;    // what to do where there is none
};

// Reads a file that only its owner may read or write into `buffer`, which the caller wipes: at most
// `capacity` bytes, and no copy is made. Returns how many; `capacity` means that the file is as
// long or longer. NOT_FOUND (missing_reason); INVALID_ARGUMENT (invalid_reason) when it is no
// regular file; PERMISSION_DENIED (invalid_reason) when it cannot be read, or group or others can.
absl::StatusOr<size_t> ReadSecretFile(const std::string& path, const SecretFileWords& words,
                                      char* buffer, size_t capacity);

// An error of the file that `words` names, with its path as metadata.
absl::Status SecretFileInvalid(absl::StatusCode code, const std::string& path,
                               const SecretFileWords& words, const std::string& problem);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_SECRET_FILE_H_
