// SPDX-License-Identifier: Apache-2.0
// What all stores of blobs say alike.
#ifndef BALLAST_SERVER_BLOB_BLOB_RULES_H_
#define BALLAST_SERVER_BLOB_BLOB_RULES_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// INVALID_ARGUMENT (BLOB_NAME_INVALID) unless `name` is as BlobStore has it.
absl::Status CheckBlobName(const std::string& name);

// NOT_FOUND (BLOB_NOT_FOUND).
absl::Status BlobNotFound(const std::string& name);

// FAILED_PRECONDITION (LINKS_UNAVAILABLE).
absl::Status LinksUnavailable();

// INVALID_ARGUMENT (DIGEST_MISMATCH) when `expected` is not empty and not `actual`.
absl::Status CheckBlobDigest(const std::string& actual, std::string_view expected);

// What is left of BlobStore::Adopt where the file has to be copied: its bytes go through `writer`,
// which is committed, and the file goes.
absl::Status MoveThrough(BlobWriter& writer, const std::string& local_path);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_BLOB_BLOB_RULES_H_
