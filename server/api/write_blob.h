// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_WRITE_BLOB_H_
#define BALLAST_SERVER_API_WRITE_BLOB_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/status_macros.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// Makes `bytes`, which a request brought whole, the blob `name`. Durable on OK; its digest. The
// caller holds the name (UnnamedBlobs) and has written it down as garbage.
inline absl::StatusOr<std::string> WriteBlob(BlobStore& blobs, const std::string& name,
                                             const std::string& bytes) {
  BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<BlobWriter> writer, blobs.Create(name));
  BALLAST_RETURN_IF_ERROR(writer->Append(bytes));
  return writer->Commit("");
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_WRITE_BLOB_H_
