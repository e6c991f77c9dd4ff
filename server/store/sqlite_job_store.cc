// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_job_store.h"

#include <utility>

#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/store/sqlite_schema.h"
#include "server/store/sqlite_transaction.h"

namespace ballast::server {

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(auto writer, SqliteConnection::Open(path, /*read_only=*/false));
  BALLAST_RETURN_IF_ERROR(MigrateSchema(*writer));
  BALLAST_ASSIGN_OR_RETURN(auto reader, SqliteConnection::Open(path, /*read_only=*/true));
  return std::unique_ptr<SqliteJobStore>(new SqliteJobStore(std::move(writer), std::move(reader)));
}

absl::Status SqliteJobStore::Update(const Body& body) {
  absl::MutexLock lock(&writer_mutex_);
  BALLAST_RETURN_IF_ERROR(writer_->Execute("BEGIN IMMEDIATE"));
  SqliteTransaction transaction(*writer_);
  absl::Status status = body(transaction);
  if (status.ok()) PassKillPoint("server.sqlite.committing");
  if (status.ok()) status = writer_->Execute("COMMIT");
  // A failed commit (a full disk) leaves the transaction open: it must not leak into the next one.
  // Where SQLite has rolled back by itself this fails harmlessly.
  if (!status.ok()) writer_->Execute("ROLLBACK").IgnoreError();
  return status;
}

absl::Status SqliteJobStore::Read(const Body& body) {
  absl::MutexLock lock(&reader_mutex_);
  BALLAST_RETURN_IF_ERROR(reader_->Execute("BEGIN"));
  SqliteTransaction transaction(*reader_);
  const absl::Status status = body(transaction);
  reader_->Execute("ROLLBACK").IgnoreError();
  return status;
}

}  // namespace ballast::server
