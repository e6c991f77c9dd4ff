// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JANITOR_H_
#define BALLAST_SERVER_API_JANITOR_H_

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
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
  // All must outlive the object. `is_sure`: whether other servers cannot take this one for gone,
  // and write to what it deletes. `sweep`: writes down what became garbage without a change, before
  // each round.
  Janitor(
      JobStore& store, BlobStore& blobs, UnnamedBlobs& unnamed,
      std::function<bool()> is_sure = [] { return true; }, std::function<void()> sweep = [] {})
      : store_(store),
        blobs_(blobs),
        unnamed_(unnamed),
        is_sure_(std::move(is_sure)),
        sweep_(std::move(sweep)) {}

  void Start() {
    loop_.Start([this] { Clean(); }, absl::Seconds(60));
  }
  void Wake() { loop_.Wake(); }
  void Stop() { loop_.Stop(); }

  // Deletes all that is written down now and that no running call holds.
  void Clean();

 private:
  // The next few prefixes that are written down.
  absl::StatusOr<std::vector<std::string>> Listed();
  // Those of them that are still written down and that no other server is at: they are this one's.
  absl::StatusOr<std::vector<std::string>> Hold(const std::set<std::string>& prefixes);
  // Strikes off what was deleted, and leaves to other servers what could not be.
  absl::Status EndHold(const std::vector<std::string>& deleted,
                       const std::vector<std::string>& failed);
  // Deletes the next few; whether there may be more.
  absl::StatusOr<bool> CleanSome();

  JobStore& store_;
  BlobStore& blobs_;
  UnnamedBlobs& unnamed_;
  const std::function<bool()> is_sure_;
  const std::function<void()> sweep_;
  absl::Mutex cleaning_mutex_;  // one round at a time
  std::string after_;           // how far this round has come
  bool unreachable_ = false;    // the store of blobs: this round was given up
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JANITOR_H_
