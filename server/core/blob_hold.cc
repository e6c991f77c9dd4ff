// SPDX-License-Identifier: Apache-2.0
#include "server/core/blob_hold.h"

#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/live_servers.h"

namespace ballast::server {

absl::Status HoldBlobs(Transaction& tx, const std::string& prefix) {
  // First, so that it waits for who writes the same one down or strikes it off.
  BALLAST_RETURN_IF_ERROR(tx.AddGarbage(prefix));
  BALLAST_ASSIGN_OR_RETURN(const auto garbage, tx.GetGarbage(prefix));
  if (garbage.has_value()) {
    BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, garbage->holder));
    if (elsewhere) {
      return WithRetry(MakeError(absl::StatusCode::kAborted, "BLOBS_IN_USE",
                                 "another server is at the same files; try again when it is done"),
                       absl::Seconds(5));
    }
  }
  return tx.AddGarbage(prefix, tx.owner());
}

absl::Status NameBlobs(Transaction& tx, const std::string& prefix) {
  BALLAST_ASSIGN_OR_RETURN(const auto garbage, tx.GetGarbage(prefix));
  if (!garbage.has_value() || garbage->holder != tx.owner()) {
    return WithRetry(MakeError(absl::StatusCode::kAborted, "BLOBS_LOST",
                               "this server was taken for gone while it stored the files, and they "
                               "may have been deleted; send them again"),
                     absl::Seconds(1));
  }
  return tx.RemoveGarbage(prefix);
}

}  // namespace ballast::server
