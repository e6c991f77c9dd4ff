// SPDX-License-Identifier: Apache-2.0
#include "server/api/platform_fault.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::server {
namespace {

// Named one by one: FILE_MISSING, FILE_TOO_LARGE and their like are about what a caller sent.
constexpr const char* kFaults[] = {
    "BLOB_REPLACED",    "COMMIT_UNKNOWN",         "DISK_FULL",         "FILE_IO",
    "FILE_NOT_FOUND",   "FILE_PERMISSION_DENIED", "OBJECT_STORE",      "RECORD_EXISTS",
    "RECORD_NOT_FOUND", "ROW_NOT_HELD",           "STORE_BUSY",        "STORE_CORRUPT",
    "STORE_IO",         "STORE_NOT_ALLOWED",      "STORE_NOT_DURABLE", "STORE_READ_ONLY",
    "STORE_STATEMENT",  "STORE_TOO_OLD",
};
constexpr absl::Duration kRetry = absl::Seconds(1);

}  // namespace

bool IsPlatformFault(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return std::find(std::begin(kFaults), std::end(kFaults), reason) != std::end(kFaults);
}

absl::Status WithoutServerDetails(const absl::Status& fault) {
  const std::string reason = ErrorReason(fault);
  if (reason == "DISK_FULL") {
    return MakeError(absl::StatusCode::kResourceExhausted, reason,
                     "the server's disk is full; tell the operator, and try again once there is "
                     "space: nothing stored was lost");
  }
  if (reason == "STORE_CORRUPT") {
    return MakeError(absl::StatusCode::kDataLoss, reason,
                     "the server's records are damaged; tell the operator");
  }
  if (reason == "COMMIT_UNKNOWN") {
    return MakeError(absl::StatusCode::kUnavailable, reason,
                     "the server lost its database while it kept the change, so it may have been "
                     "made or not; look, or send the request again with the same request_id");
  }
  return WithRetry(MakeError(absl::StatusCode::kUnavailable, reason,
                             "the server could not read or write what it keeps; try again, and "
                             "tell the operator if it goes on"),
                   kRetry);
}

std::string ForLog(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return IsPlatformFault(status) ? absl::StrCat(reason, ": ", status.message()) : reason;
}

}  // namespace ballast::server
