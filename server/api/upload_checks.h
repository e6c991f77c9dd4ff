// SPDX-License-Identifier: Apache-2.0
// What uploads through the server and by links are checked for alike.
#ifndef BALLAST_SERVER_API_UPLOAD_CHECKS_H_
#define BALLAST_SERVER_API_UPLOAD_CHECKS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// INVALID_ARGUMENT (FILE_TOO_LARGE) about `field`.
inline absl::Status FileTooLarge(const std::string& field, int64_t max_bytes) {
  return FieldError(field, "FILE_TOO_LARGE",
                    absl::StrCat("the file has more than ", max_bytes,
                                 " bytes, the most that this server takes; split it"));
}

// That a whole file's digest is one. INVALID_ARGUMENT (DIGEST_INVALID).
inline absl::Status CheckDigestOfFile(const std::string& digest) {
  if (IsDigest(digest)) return absl::OkStatus();
  return FieldError("digest", "DIGEST_INVALID",
                    "digest must be \"sha256:\" and 64 lower-case hex digits, of the whole file");
}

// Bytes that are stored of an upload that has not ended, for DatasetCatalog::CheckRoom.
inline std::function<absl::StatusOr<int64_t>(const std::string& blob)> BytesIn(BlobStore& blobs) {
  return [&blobs](const std::string& blob) {
    auto stored = blobs.Size(blob);
    // Not begun yet, or half deleted.
    if (absl::IsNotFound(stored.status()) || absl::IsDataLoss(stored.status())) stored = 0;
    return stored;
  };
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_UPLOAD_CHECKS_H_
