// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_CONNECTION_H_
#define BALLAST_SERVER_STORE_POSTGRES_CONNECTION_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct pg_conn;
struct pg_result;

namespace ballast::server {

// A parameter of a statement. What it views must live until Run returns.
class PostgresValue {
 public:
  enum class Type { kText, kBytes, kInt };
  static PostgresValue Text(std::string_view value) { return {Type::kText, value, 0}; }
  static PostgresValue Bytes(std::string_view value) { return {Type::kBytes, value, 0}; }
  static PostgresValue Int(int64_t value) { return {Type::kInt, {}, value}; }

  Type type() const { return type_; }
  std::string_view text() const { return text_; }
  int64_t integer() const { return integer_; }

 private:
  PostgresValue(Type type, std::string_view text, int64_t integer)
      : type_(type), text_(text), integer_(integer) {}

  Type type_;
  std::string_view text_;
  int64_t integer_;
};

// A statement with values for $1, $2, ... It is prepared once and found again by the address of its
// text: `sql` is a constant of the program.
struct PostgresStatement {
  const char* sql;
  std::vector<PostgresValue> values;
};

// The rows of a statement. Thread safety: not thread-safe.
class PostgresRows {
 public:
  explicit PostgresRows(pg_result* result) : result_(result) {}
  ~PostgresRows();
  PostgresRows(PostgresRows&& other) noexcept : result_(other.result_) { other.result_ = nullptr; }
  PostgresRows& operator=(PostgresRows&&) = delete;

  int count() const;
  std::string TextAt(int row, int column) const;  // text or bytea
  int64_t IntAt(int row, int column) const;       // bigint
  // Whether the statement was a COMMIT that has committed.
  bool has_committed() const;

 private:
  pg_result* result_;
};

// What a session has sent with NOTIFY on a channel that the connection listens to.
struct PostgresNotification {
  int64_t sender;  // pg_backend_pid() of that session
  std::string payload;
};

// A connection to a PostgreSQL database. Thread safety: not thread-safe.
// Failures of all calls: RESOURCE_EXHAUSTED (DISK_FULL), UNAVAILABLE (STORE_IO, STORE_BUSY),
// DATA_LOSS (STORE_CORRUPT), ALREADY_EXISTS (RECORD_EXISTS) for a broken unique key, NOT_FOUND
// (RECORD_NOT_FOUND) for a broken foreign key, INTERNAL (STORE_READ_ONLY) for a write in a
// transaction that reads, INTERNAL (STORE_STATEMENT) for a statement that makes no sense.
class PostgresConnection {
 public:
  // `conninfo`: a connection string or URI of libpq (PostgreSQL's manual, section 34.1.1). Commits
  // wait for the disk; statements, locks and idle transactions end after a while. Also
  // INVALID_ARGUMENT (CONNINFO_INVALID), FAILED_PRECONDITION (STORE_NOT_DURABLE, STORE_TOO_OLD,
  // STORE_NOT_ALLOWED) for a server without fsync or full_page_writes, one before version 12, or no
  // schema to work in.
  static absl::StatusOr<std::unique_ptr<PostgresConnection>> Open(const std::string& conninfo);
  // Whether it can be read at all: INVALID_ARGUMENT (CONNINFO_INVALID).
  static absl::Status CheckConninfo(const std::string& conninfo);
  ~PostgresConnection();
  PostgresConnection(const PostgresConnection&) = delete;
  PostgresConnection& operator=(const PostgresConnection&) = delete;

  // Runs statements without parameters. Nothing of their rows is kept.
  absl::Status Execute(const std::string& sql);

  // Runs one statement, as PostgresStatement has it.
  absl::StatusOr<PostgresRows> Run(const char* sql, std::initializer_list<PostgresValue> values);
  // Runs statements one after the other, in one round trip. After a failure the rest is not run.
  absl::StatusOr<std::vector<PostgresRows>> RunAll(
      const std::vector<PostgresStatement>& statements);

  // For who waits for other things, too. Send begins a statement, and Receive, to be called when
  // socket() can be read, reads what has come without waiting for more: notifications, which are
  // added to `notifications`, and the end of the statement. It says whether no statement runs any
  // more; until then no other may begin. Close the connection when one of them has failed.
  absl::Status Send(const char* sql, std::initializer_list<PostgresValue> values);
  absl::StatusOr<bool> Receive(std::vector<PostgresNotification>& notifications);
  int socket() const;

  // To be run first in a transaction that sees what others commit meanwhile, and in one on a
  // consistent state, in which writing fails.
  static constexpr char kBegin[] = "BEGIN ISOLATION LEVEL READ COMMITTED";
  static constexpr char kBeginReadOnly[] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
  // Runs the `last` statements of a transaction and commits it, in one round trip. An error that
  // leaves open whether it did is UNAVAILABLE (COMMIT_UNKNOWN).
  absl::Status Commit(std::vector<PostgresStatement> last);

  // Random: no other connection has it.
  const std::string& id() const { return id_; }
  // 1, 2, 3, ...
  int64_t NextSerial() { return ++serial_; }

  // False when it is of no use any more: close it.
  bool alive() const;
  // Whether it is alive and in no transaction.
  bool idle() const;
  // SQLSTATE of the last failure since ForgetFailure; empty without one, or for one that has none,
  // as that of a lost connection.
  const std::string& sqlstate() const { return sqlstate_; }
  void ForgetFailure() { sqlstate_.clear(); }

 private:
  explicit PostgresConnection(pg_conn* connection);

  absl::Status SetUp();
  // The name under which the server has the statement.
  absl::StatusOr<std::string> Prepared(const char* sql, const PostgresValue* values, size_t count);
  // The failure that `result` is, which may be null. Frees it.
  absl::Status Fail(pg_result* result);

  pg_conn* connection_;
  const std::string id_;
  int64_t serial_ = 0;
  std::map<const char*, std::string> statements_;  // text -> name
  std::string sqlstate_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_CONNECTION_H_
