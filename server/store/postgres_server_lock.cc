// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_server_lock.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

// One for each schema: two keys of 32 bits, the first any number, the same in all versions.
constexpr char kTryLock[] =
    "SELECT pg_try_advisory_lock(716192602, hashtext(current_schema()))::int::bigint";
constexpr char kMakeGeneration[] =
    "CREATE TABLE IF NOT EXISTS server_generation (one bigint PRIMARY KEY, last bigint NOT NULL);"
    "INSERT INTO server_generation VALUES (1, 0) ON CONFLICT DO NOTHING";
constexpr char kNextGeneration[] = "UPDATE server_generation SET last = last + 1 RETURNING last";
constexpr char kLastGeneration[] = "SELECT last FROM server_generation";

absl::Status InUse() {
  return MakeError(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
                   "another ballast-server uses this PostgreSQL database; stop it first, or give "
                   "this one another database");
}

absl::StatusOr<int64_t> Single(PostgresConnection& connection, const char* sql) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows, connection.Run(sql, {}));
  return rows.IntAt(0, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresServerLock>> PostgresServerLock::Acquire(
    const std::string& conninfo, const std::function<bool()>& wait) {
  std::unique_ptr<PostgresServerLock> lock(new PostgresServerLock(conninfo));
  do {
    BALLAST_ASSIGN_OR_RETURN(lock->connection_, lock->Try());
  } while (lock->connection_ == nullptr && wait());
  if (lock->connection_ == nullptr) return InUse();
  BALLAST_RETURN_IF_ERROR(lock->connection_->Execute(kMakeGeneration));
  BALLAST_ASSIGN_OR_RETURN(lock->generation_, Single(*lock->connection_, kNextGeneration));
  return lock;
}

absl::StatusOr<std::unique_ptr<PostgresConnection>> PostgresServerLock::Try() {
  BALLAST_ASSIGN_OR_RETURN(auto connection, PostgresConnection::Open(conninfo_));
  BALLAST_ASSIGN_OR_RETURN(const int64_t taken, Single(*connection, kTryLock));
  if (taken == 0) connection.reset();
  return connection;
}

absl::Status PostgresServerLock::Check() {
  if (connection_ != nullptr && connection_->Execute("SELECT 1").ok()) return absl::OkStatus();
  const bool was_cut = connection_ == nullptr || !connection_->alive();
  if (!was_cut) return absl::OkStatus();  // slow, and still there
  connection_.reset();
  BALLAST_ASSIGN_OR_RETURN(auto connection, Try());
  if (connection == nullptr) return InUse();
  BALLAST_ASSIGN_OR_RETURN(const int64_t generation, Single(*connection, kLastGeneration));
  if (generation != generation_) return InUse();
  connection_ = std::move(connection);
  return absl::OkStatus();
}

}  // namespace ballast::server
