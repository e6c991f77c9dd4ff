// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_REQUEST_FILE_H_
#define BALLAST_CLIENT_CPP_REQUEST_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {

// The file at `path`, which goes whole into the field `field` of one request. INVALID_ARGUMENT
// (`reason`) above the service's limit of 1 MiB: a longer file would only fail later.
inline absl::StatusOr<std::string> ReadRequestFile(const char* field, const char* reason,
                                                   const std::string& path) {
  constexpr int64_t kMaxBytes = int64_t{1} << 20;
  BALLAST_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
  if (bytes > kMaxBytes) {
    return FieldError(
        field, reason,
        absl::StrCat(path, " has ", bytes, " bytes; at most ", kMaxBytes, " are allowed"));
  }
  return ReadFile(path, kMaxBytes);
}

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_REQUEST_FILE_H_
