// SPDX-License-Identifier: Apache-2.0
// Blobs that a server writes before a record names them, or deletes. They are written down as
// garbage, so that a crash leaves nothing for good, and the server holds them there, so that
// the others keep away until it is gone (live_servers.h). Functions over a transaction.
#ifndef BALLAST_SERVER_CORE_BLOB_HOLD_H_
#define BALLAST_SERVER_CORE_BLOB_HOLD_H_

#include <string>

#include "absl/status/status.h"
#include "server/core/job_store.h"

namespace ballast::server {

// Writes blobs down that this server is about to write or to delete. ABORTED (BLOBS_IN_USE) where
// another server holds them.
absl::Status HoldBlobs(Transaction& tx, const std::string& prefix);

// A record names the blobs from this transaction on. ABORTED (BLOBS_LOST) where this server does
// not hold them any more: the others took it for gone, and may have deleted them.
absl::Status NameBlobs(Transaction& tx, const std::string& prefix);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_BLOB_HOLD_H_
