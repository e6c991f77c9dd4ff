// SPDX-License-Identifier: Apache-2.0
// Links to read a blob by, as calls give them.
#ifndef BALLAST_SERVER_API_READ_LINKS_H_
#define BALLAST_SERVER_API_READ_LINKS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// Links to all of a blob. FAILED_PRECONDITION (LINKS_UNAVAILABLE) also where it has so many pieces
// that a message with them could be larger than gRPC takes (4 MiB, unless a client says more): a
// link that is signed with a session of a role has up to 3 KiB.
inline absl::StatusOr<BlobLinks> LinksToRead(BlobStore& blobs, const std::string& blob) {
  constexpr size_t kMostLinks = 1000;
  BALLAST_ASSIGN_OR_RETURN(BlobLinks links, blobs.ReadLinks(blob));
  if (links.links.size() <= kMostLinks) return links;
  return MakeError(absl::StatusCode::kFailedPrecondition, "LINKS_UNAVAILABLE",
                   absl::StrCat("it has ", links.links.size(), " pieces, and links are given to ",
                                kMostLinks, " at most; read the bytes from this server"));
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_READ_LINKS_H_
