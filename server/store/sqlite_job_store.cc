// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_job_store.h"

#include <utility>

#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/store/sqlite_schema.h"
#include "server/store/sqlite_transaction.h"

namespace ballast::server {
namespace {
// Bounds how long the first one waits for the commit.
constexpr int kMostRuns = 32;
// More than those have who read much at a time (ServerOptions::watch_threads).
constexpr int kReaders = 4;
}  // namespace

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(auto writer, SqliteConnection::Open(path, /*read_only=*/false));
  BALLAST_RETURN_IF_ERROR(MigrateSchema(*writer));
  Readers readers;
  for (int i = 0; i < kReaders; ++i) {
    BALLAST_ASSIGN_OR_RETURN(auto reader, SqliteConnection::Open(path, /*read_only=*/true));
    readers.push_back(std::move(reader));
  }
  return std::unique_ptr<SqliteJobStore>(new SqliteJobStore(std::move(writer), std::move(readers)));
}

absl::Status SqliteJobStore::Update(const Body& body) {
  ++waiting_;
  absl::MutexLock lock(&writer_mutex_);
  --waiting_;
  const absl::Status status = RunMember(body);
  const std::shared_ptr<Group> group = group_;
  if (group == nullptr) return status;
  // Who waits for the mutex joins the group, and ends it or leaves that to the next one.
  if (waiting_ == 0 || group->runs >= kMostRuns) {
    PassKillPoint("server.sqlite.committing");
    EndGroup(writer_->Execute("COMMIT"));
  }
  // What a body that failed has seen of others is to be true before it is told.
  writer_mutex_.Await(absl::Condition(&group->ended));
  return status.ok() ? group->status : status;
}

absl::Status SqliteJobStore::RunMember(const Body& body) {
  if (group_ == nullptr) {
    BALLAST_RETURN_IF_ERROR(writer_->Execute("BEGIN IMMEDIATE"));
    group_ = std::make_shared<Group>();
  }
  ++group_->runs;
  BALLAST_RETURN_IF_ERROR(writer_->Execute("SAVEPOINT member"));
  SqliteTransaction transaction(*writer_, owner_);
  absl::Status status = body(transaction);
  if (status.ok() && writer_->InTransaction()) status = writer_->Execute("RELEASE member");
  if (status.ok()) return status;
  // A full disk and the like make SQLite roll back all that the group has done.
  const absl::Status undone =
      writer_->InTransaction() ? writer_->Execute("ROLLBACK TO member; RELEASE member") : status;
  if (!undone.ok()) EndGroup(undone);
  return status;
}

void SqliteJobStore::EndGroup(const absl::Status& status) {
  // A failed commit (a full disk) leaves the transaction open: it must not leak into the next one.
  if (writer_->InTransaction()) writer_->Execute("ROLLBACK").IgnoreError();
  group_->status = status;
  group_->ended = true;
  group_ = nullptr;
}

absl::Status SqliteJobStore::Read(const Body& body) {
  std::unique_ptr<SqliteConnection> reader;
  {
    absl::MutexLock lock(&readers_mutex_);
    const auto one_is_free = [this]() ABSL_SHARED_LOCKS_REQUIRED(readers_mutex_) {
      return !readers_.empty();
    };
    readers_mutex_.Await(absl::Condition(&one_is_free));
    reader = std::move(readers_.back());
    readers_.pop_back();
  }
  absl::Status status = reader->Execute("BEGIN");
  if (status.ok()) {
    SqliteTransaction transaction(*reader, owner_);
    status = body(transaction);
    reader->Execute("ROLLBACK").IgnoreError();
  }
  absl::MutexLock lock(&readers_mutex_);
  readers_.push_back(std::move(reader));
  return status;
}

}  // namespace ballast::server
