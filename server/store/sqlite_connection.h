// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_SQLITE_CONNECTION_H_
#define BALLAST_SERVER_STORE_SQLITE_CONNECTION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ballast::server {

class SqliteStatement;

// An open database. Thread safety: not thread-safe.
// Failures of all calls: RESOURCE_EXHAUSTED (DISK_FULL), UNAVAILABLE (STORE_IO, STORE_BUSY),
// DATA_LOSS (STORE_CORRUPT), ALREADY_EXISTS (RECORD_EXISTS) for a broken unique key, NOT_FOUND
// (RECORD_NOT_FOUND) for a broken foreign key, INTERNAL (STORE_READ_ONLY) for a write to a
// read-only connection.
class SqliteConnection {
 public:
  // Opens or makes the database file: write-ahead log, synchronous=FULL (a commit survives a power
  // cut), foreign keys, waiting up to 10 s for another process's lock.
  static absl::StatusOr<std::unique_ptr<SqliteConnection>> Open(const std::string& path,
                                                                bool read_only);
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // Whether a transaction is open: some failures end it.
  bool InTransaction() const;

  // Runs statements without parameters or results.
  absl::Status Execute(const std::string& sql);

  // A prepared statement, kept for the next time; `sql` is a constant of the program. Valid until
  // the same text is asked for again.
  absl::StatusOr<SqliteStatement*> Prepare(const char* sql);

  // The failure that `code` means.
  absl::Status Error(int code, std::string_view doing) const;

 private:
  SqliteConnection(sqlite3* db, std::string path);

  sqlite3* db_;
  std::string path_;
  std::map<const char*, std::unique_ptr<SqliteStatement>> statements_;
};

// A prepared statement with its parameters and the row that it stands on. Thread safety: as its
// connection.
class SqliteStatement {
 public:
  SqliteStatement(SqliteConnection& connection, sqlite3_stmt* statement)
      : connection_(connection), statement_(statement) {}
  ~SqliteStatement();
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  // Parameters in the order of the statement's question marks. Text must stay alive until Reset.
  SqliteStatement& Text(std::string_view value);
  SqliteStatement& Blob(std::string_view value);
  SqliteStatement& Int(int64_t value);

  // Moves to the next row: true when there is one.
  absl::StatusOr<bool> Step();
  // Runs a statement that has no rows, and resets it.
  absl::Status Run();
  // Ready for new parameters.
  void Reset();

  std::string TextAt(int column) const;
  int64_t IntAt(int column) const;

 private:
  void Bound(int code);

  SqliteConnection& connection_;
  sqlite3_stmt* statement_;
  int next_parameter_ = 1;
  int bind_error_ = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_SQLITE_CONNECTION_H_
