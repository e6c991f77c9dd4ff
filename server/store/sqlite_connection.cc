// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_connection.h"

#include <sqlite3.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {
constexpr int kBusyTimeoutMs = 10'000;
}  // namespace

SqliteConnection::SqliteConnection(sqlite3* db, std::string path)
    : db_(db), path_(std::move(path)) {}

SqliteConnection::~SqliteConnection() {
  statements_.clear();
  sqlite3_close(db_);
}

absl::StatusOr<std::unique_ptr<SqliteConnection>> SqliteConnection::Open(const std::string& path,
                                                                         bool read_only) {
  sqlite3* db = nullptr;
  // Both kinds are opened for writing: the write-ahead log needs it. query_only keeps readers
  // honest.
  const int code = sqlite3_open_v2(
      path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection(db, path));
  if (code != SQLITE_OK) return connection->Error(code, "open");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, kBusyTimeoutMs);
  BALLAST_RETURN_IF_ERROR(connection->Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"));
  if (read_only) BALLAST_RETURN_IF_ERROR(connection->Execute("PRAGMA query_only = ON;"));
  return connection;
}

bool SqliteConnection::InTransaction() const { return sqlite3_get_autocommit(db_) == 0; }

absl::Status SqliteConnection::Execute(const std::string& sql) {
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code, "change");
}

absl::StatusOr<SqliteStatement*> SqliteConnection::Prepare(const char* sql) {
  auto& statement = statements_[sql];
  if (statement == nullptr) {
    sqlite3_stmt* prepared = nullptr;
    const int code =
        sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr);
    if (code != SQLITE_OK) {
      statements_.erase(sql);
      return Error(code, "read");
    }
    statement = std::make_unique<SqliteStatement>(*this, prepared);
  }
  statement->Reset();
  return statement.get();
}

absl::Status SqliteConnection::Error(int code, std::string_view doing) const {
  const std::string message =
      absl::StrCat("cannot ", std::string(doing), " the database ", path_, ": ",
                   db_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db_));
  const int system_error = db_ == nullptr ? 0 : sqlite3_system_errno(db_);
  switch (code & 0xff) {
    case SQLITE_FULL:
      break;
    case SQLITE_IOERR:
      if (system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG) break;
      return MakeError(absl::StatusCode::kUnavailable, "STORE_IO", message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return WithRetry(MakeError(absl::StatusCode::kUnavailable, "STORE_BUSY", message),
                       absl::Seconds(1));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                       absl::StrCat(message, "; restore a backup"));
    case SQLITE_READONLY:
      return MakeError(absl::StatusCode::kInternal, "STORE_READ_ONLY", message);
    case SQLITE_CONSTRAINT:
      return code == SQLITE_CONSTRAINT_FOREIGNKEY
                 ? MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND", message)
                 : MakeError(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS", message);
    default:
      return MakeError(absl::StatusCode::kUnavailable, "STORE_IO", message);
  }
  return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                   absl::StrCat(message, "; free space and try again, nothing stored was lost"));
}

SqliteStatement::~SqliteStatement() { sqlite3_finalize(statement_); }

void SqliteStatement::Bound(int code) {
  ++next_parameter_;
  if (code != SQLITE_OK && bind_error_ == SQLITE_OK) bind_error_ = code;
}

SqliteStatement& SqliteStatement::Text(std::string_view value) {
  // A null pointer would bind NULL.
  const char* data = value.data() == nullptr ? "" : value.data();
  Bound(sqlite3_bind_text64(statement_, next_parameter_, data, value.size(), SQLITE_STATIC,
                            SQLITE_UTF8));
  return *this;
}

SqliteStatement& SqliteStatement::Blob(std::string_view value) {
  const char* data = value.data() == nullptr ? "" : value.data();
  Bound(sqlite3_bind_blob64(statement_, next_parameter_, data, value.size(), SQLITE_STATIC));
  return *this;
}

SqliteStatement& SqliteStatement::Int(int64_t value) {
  Bound(sqlite3_bind_int64(statement_, next_parameter_, value));
  return *this;
}

absl::StatusOr<bool> SqliteStatement::Step() {
  if (bind_error_ != SQLITE_OK) return connection_.Error(bind_error_, "query");
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  const absl::Status error = connection_.Error(code, "change");
  Reset();
  return error;
}

absl::Status SqliteStatement::Run() {
  const auto row = Step();
  Reset();
  return row.status();
}

void SqliteStatement::Reset() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  next_parameter_ = 1;
  bind_error_ = SQLITE_OK;
}

std::string SqliteStatement::TextAt(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? std::string() : std::string(data, static_cast<size_t>(size));
}

int64_t SqliteStatement::IntAt(int column) const {
  return sqlite3_column_int64(statement_, column);
}

}  // namespace ballast::server
