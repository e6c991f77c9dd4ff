// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JANITOR_H_
#define BALLAST_SERVER_API_JANITOR_H_

#include "server/api/background_loop.h"
#include "server/core/blob_store.h"
#include "server/core/job_store.h"

namespace ballast::server {

// Deletes blobs that no record names any more: rows of trained vectors, checkpoints, files of
// attempts that came to nothing, deleted data sets. What is to go was written down with the change
// that made it so, and is struck off once it is gone.
class Janitor {
 public:
  // Both must outlive the object.
  Janitor(JobStore& store, BlobStore& blobs) : store_(store), blobs_(blobs) {}

  void Start() {
    loop_.Start([this] { Clean(); }, absl::Seconds(60));
  }
  void Wake() { loop_.Wake(); }
  void Stop() { loop_.Stop(); }

  // Deletes all that is written down now.
  void Clean();

 private:
  JobStore& store_;
  BlobStore& blobs_;
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JANITOR_H_
