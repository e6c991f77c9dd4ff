// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_SQLITE_JOB_STORE_H_
#define BALLAST_SERVER_STORE_SQLITE_JOB_STORE_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/core/job_store.h"
#include "server/store/sqlite_connection.h"

namespace ballast::server {

// A JobStore in one SQLite file. Writes go through one connection and are on disk when Update
// returns; those that wait for it while another one runs are committed together, by the last of
// them. Reads have connections of their own, a few of them beside each other, and do not wait for a
// commit. Made for one server process (DataDirLock sees to that).
class SqliteJobStore : public JobStore {
 public:
  // Opens or makes the database and brings its schema up to date. Failures: SqliteConnection's,
  // FAILED_PRECONDITION (SCHEMA_TOO_NEW).
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(const std::string& path);

  absl::Status Update(const Body& body) override;
  absl::Status Read(const Body& body) override;
  const std::string& owner() const override { return owner_; }

 private:
  // Updates that share a commit.
  struct Group {
    int runs = 0;  // of bodies, also of those that failed
    bool ended = false;
    absl::Status status;  // once it has ended
  };

  // Runs `body` as a member of `group_`, which it may have to begin.
  absl::Status RunMember(const Body& body) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void EndGroup(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);

  using Readers = std::vector<std::unique_ptr<SqliteConnection>>;

  SqliteJobStore(std::unique_ptr<SqliteConnection> writer, Readers readers)
      : writer_(std::move(writer)), readers_(std::move(readers)) {}

  // There is no other, at no time.
  const std::string owner_ = "the-server";
  absl::Mutex writer_mutex_;
  std::atomic<int> waiting_ = 0;  // for writer_mutex_
  // The one whose transaction is open, if any; those who wait for its end have it, too.
  std::shared_ptr<Group> group_ ABSL_GUARDED_BY(writer_mutex_);
  const std::unique_ptr<SqliteConnection> writer_ ABSL_PT_GUARDED_BY(writer_mutex_);
  absl::Mutex readers_mutex_;
  Readers readers_ ABSL_GUARDED_BY(readers_mutex_);  // that nobody uses
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_SQLITE_JOB_STORE_H_
