// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JANITOR_H_
#define BALLAST_SERVER_API_JANITOR_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/api/background_loop.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/blob_store.h"
#include "server/core/job_store.h"

namespace ballast::server {

// Deletes blobs that no record names any more: rows of trained vectors, checkpoints, files of
// attempts that came to nothing, deleted data sets. What is to go was written down with the change
// that made it so, and is struck off once it is gone. What cannot be deleted now is left for the
// next time, and keeps nothing else from being deleted.
class Janitor {
 public:
  // All must outlive the object.
  Janitor(JobStore& store, BlobStore& blobs, UnnamedBlobs& unnamed)
      : store_(store), blobs_(blobs), unnamed_(unnamed) {}

  void Start() {
    loop_.Start([this] { Clean(); }, absl::Seconds(60));
  }
  void Wake() { loop_.Wake(); }
  void Stop() { loop_.Stop(); }

  // Deletes all that is written down now and that no running call holds.
  void Clean();

 private:
  // The first `most` prefixes that are written down.
  absl::StatusOr<std::vector<std::string>> Garbage(size_t most);
  // Deletes the next few, those in `skipped_` aside; whether there may be more. What it cannot or
  // must not delete goes there.
  absl::StatusOr<bool> CleanSome();

  JobStore& store_;
  BlobStore& blobs_;
  UnnamedBlobs& unnamed_;
  std::set<std::string> skipped_;  // in this round, and where it was given up in those before
  bool unreachable_ = false;       // the store of blobs: this round was given up
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JANITOR_H_
