// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_LIVE_SERVERS_H_
#define BALLAST_SERVER_CORE_LIVE_SERVERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// Whether `owner` (JobStore::owner), which may be empty, is another server than this and not gone.
absl::StatusOr<bool> IsAtAnotherServer(Transaction& tx, const std::string& owner);

// The servers that share a store. Each gives a sign of life now and then, in a record of its own,
// and the others delete the record of one that has given none for a while: what it was at is then
// theirs to take up. How long that is each finds out by its own clock, so that the clocks of
// different machines need not agree. A server that is started again takes its record over, and what
// it was at before is free at once. No server is above the others. Where the store is not shared
// there is nothing to do. Thread safety: thread-safe.
class LiveServers {
 public:
  static constexpr absl::Duration kBetweenSigns = absl::Seconds(5);
  // From its last sign that was seen to being gone.
  static constexpr absl::Duration kPatience = absl::Seconds(30);

  // `blobs`: where this server keeps blobs. `store` must outlive the object.
  LiveServers(JobStore& store, std::string blobs, std::string version)
      : store_(store), blobs_(std::move(blobs)), version_(std::move(version)) {}

  // Begins to work beside the others. FAILED_PRECONDITION (BLOB_STORE_DIFFERS): another one that is
  // not known to be gone keeps its blobs elsewhere; called again for as long as kPatience, this
  // finds out.
  absl::Status Join(absl::Time now);
  // Gives a sign of life and looks at those of others, when it is time to. FAILED_PRECONDITION
  // (SERVER_ID_TAKEN): another process has begun with the id of this one, which must stop.
  absl::Status Enter(absl::Time now);
  // Whether the others cannot yet take this server for gone.
  bool IsSure(absl::Time now) const;
  // What this server was at is the others' now.
  absl::Status Leave();

 private:
  // The last sign of another server, and since when that is it.
  struct Seen {
    int64_t sign = 0;
    absl::Time since;
  };

  absl::Status GiveSignLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Looks at the others, and deletes those that are gone. Those that are not.
  absl::StatusOr<std::vector<ServerRecord>> LookLocked(absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckBlobs(const std::vector<ServerRecord>& others) const;
  absl::Status LeaveLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  JobStore& store_;
  const std::string blobs_, version_;
  mutable absl::Mutex mutex_;
  bool joined_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time next_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time last_sign_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time last_look_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::map<std::string, Seen> others_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_LIVE_SERVERS_H_
