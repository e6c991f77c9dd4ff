// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_connection.h"

#include <endian.h>
#include <libpq-fe.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

constexpr int kOldestServer = 120000;  // tcp_user_timeout
// Types of parameters, from PostgreSQL's catalog (pg_type.dat).
constexpr Oid kByteaOid = 17, kInt8Oid = 20, kTextOid = 25;
constexpr int kBinary = 1;

// A statement that waits for a lock for long would hold up others in turn; a server process that is
// stopped in a transaction must not keep its rows from all others, nor one that has vanished.
constexpr char kSession[] =
    "SET synchronous_commit = on; SET statement_timeout = '10s'; SET lock_timeout = '5s';"
    "SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = 'warning';"
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;"
    "SET tcp_user_timeout = 20000;"
    // Every statement goes by an index, whatever its values are: none needs a plan of its own.
    "SET plan_cache_mode = 'force_generic_plan'; SET enable_seqscan = off";

constexpr char kCommit[] = "COMMIT";

void LogNotice(void*, const char* message) {
  spdlog::debug("PostgreSQL says: {}", std::string(absl::StripTrailingAsciiWhitespace(message)));
}

Oid OidOf(PostgresValue::Type type) {
  switch (type) {
    case PostgresValue::Type::kText:
      return kTextOid;
    case PostgresValue::Type::kBytes:
      return kByteaOid;
    case PostgresValue::Type::kInt:
      return kInt8Oid;
  }
  return kTextOid;
}

// The values of a statement, as libpq takes them: in binary.
class Parameters {
 public:
  Parameters(const PostgresValue* values, size_t count) : formats_(count, kBinary) {
    integers_.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const PostgresValue& value = values[i];
      if (value.type() == PostgresValue::Type::kInt) {
        integers_.push_back(htobe64(static_cast<uint64_t>(value.integer())));
        data_.push_back(reinterpret_cast<const char*>(&integers_.back()));
        lengths_.push_back(sizeof(uint64_t));
      } else {
        // A null pointer would be NULL.
        data_.push_back(value.text().data() == nullptr ? "" : value.text().data());
        lengths_.push_back(static_cast<int>(value.text().size()));
      }
    }
  }
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  int count() const { return static_cast<int>(data_.size()); }
  const char* const* data() const { return data_.data(); }
  const int* lengths() const { return lengths_.data(); }
  const int* formats() const { return formats_.data(); }

 private:
  std::vector<uint64_t> integers_;
  std::vector<const char*> data_;
  std::vector<int> lengths_, formats_;
};

bool Succeeded(const PGresult* result) {
  const ExecStatusType status = PQresultStatus(result);
  return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

}  // namespace

PostgresRows::~PostgresRows() { PQclear(result_); }

int PostgresRows::count() const { return PQntuples(result_); }

std::string PostgresRows::TextAt(int row, int column) const {
  return {PQgetvalue(result_, row, column), static_cast<size_t>(PQgetlength(result_, row, column))};
}

int64_t PostgresRows::IntAt(int row, int column) const {
  uint64_t value = 0;
  if (PQgetlength(result_, row, column) == sizeof(value)) {
    std::memcpy(&value, PQgetvalue(result_, row, column), sizeof(value));
  }
  return static_cast<int64_t>(be64toh(value));
}

bool PostgresRows::has_committed() const {
  return std::string_view(PQcmdStatus(result_)) == "COMMIT";
}

PostgresConnection::PostgresConnection(PGconn* connection)
    : connection_(connection), id_(RandomHex(128)) {}

absl::StatusOr<std::unique_ptr<PostgresConnection>> PostgresConnection::Open(
    const std::string& conninfo) {
  BALLAST_RETURN_IF_ERROR(CheckConninfo(conninfo));
  // The last word for one key counts, so what is given comes after these.
  constexpr const char* kKeys[] = {
      "application_name", "connect_timeout",  "keepalives_idle", "keepalives_interval",
      "keepalives_count", "tcp_user_timeout", "dbname",          nullptr};
  const char* const values[] = {"ballast-server", "5",    "10", "5", "3", "20000",
                                conninfo.c_str(), nullptr};
  std::unique_ptr<PostgresConnection> connection(
      new PostgresConnection(PQconnectdbParams(kKeys, values, /*expand_dbname=*/1)));
  if (PQstatus(connection->connection_) != CONNECTION_OK) {
    return Annotate(connection->Fail(nullptr), "connecting to PostgreSQL");
  }
  BALLAST_RETURN_IF_ERROR(connection->SetUp());
  return connection;
}

absl::Status PostgresConnection::CheckConninfo(const std::string& conninfo) {
  char* why = nullptr;
  PQconninfoOption* options = PQconninfoParse(conninfo.c_str(), &why);
  const bool ok = options != nullptr;
  PQconninfoFree(options);
  PQfreemem(why);
  if (ok) return absl::OkStatus();
  // What libpq says of it quotes it, password and all.
  return MakeError(
      absl::StatusCode::kInvalidArgument, "CONNINFO_INVALID",
      "the connection string of PostgreSQL cannot be read; write KEY=VALUE pairs, with "
      "values that have spaces in single quotes, or a postgresql:// URI");
}

PostgresConnection::~PostgresConnection() { PQfinish(connection_); }

absl::Status PostgresConnection::SetUp() {
  PQsetNoticeProcessor(connection_, LogNotice, nullptr);
  if (PQserverVersion(connection_) < kOldestServer) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "STORE_TOO_OLD",
                     absl::StrCat("PostgreSQL has version ", PQserverVersion(connection_) / 10000,
                                  ", and Ballast needs 12 or later"));
  }
  if (PQsetClientEncoding(connection_, "UTF8") != 0) return Fail(nullptr);
  BALLAST_RETURN_IF_ERROR(Execute(kSession));
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows off,
      Run("SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
          " AND setting = 'off' ORDER BY name",
          {}));
  if (off.count() > 0) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "STORE_NOT_DURABLE",
        absl::StrCat("PostgreSQL runs with ", off.TextAt(0, 0),
                     " = off, so a power cut loses what was acknowledged; turn it on"));
  }
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows schema,
                           Run("SELECT coalesce(current_schema()::text, '')", {}));
  if (!schema.TextAt(0, 0).empty()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "STORE_NOT_ALLOWED",
      "the search path of the PostgreSQL user has no schema; make one, or let the user "
      "own the database");
}

absl::Status PostgresConnection::Execute(const std::string& sql) {
  PGresult* result = PQexec(connection_, sql.c_str());
  if (!Succeeded(result)) return Fail(result);
  PQclear(result);
  return absl::OkStatus();
}

absl::StatusOr<std::string> PostgresConnection::Prepared(const char* sql,
                                                         const PostgresValue* values,
                                                         size_t count) {
  auto [statement, is_new] = statements_.try_emplace(sql);
  if (!is_new) return statement->second;
  std::vector<Oid> types;
  for (size_t i = 0; i < count; ++i) types.push_back(OidOf(values[i].type()));
  statement->second = absl::StrCat("s", statements_.size());
  PGresult* prepared =
      PQprepare(connection_, statement->second.c_str(), sql, static_cast<int>(count), types.data());
  if (!Succeeded(prepared)) {
    statements_.erase(statement);
    return Fail(prepared);
  }
  PQclear(prepared);
  return statement->second;
}

absl::StatusOr<PostgresRows> PostgresConnection::Run(const char* sql,
                                                     std::initializer_list<PostgresValue> values) {
  BALLAST_ASSIGN_OR_RETURN(const std::string name, Prepared(sql, values.begin(), values.size()));
  const Parameters parameters(values.begin(), values.size());
  PGresult* result =
      PQexecPrepared(connection_, name.c_str(), parameters.count(), parameters.data(),
                     parameters.lengths(), parameters.formats(), kBinary);
  if (!Succeeded(result)) return Fail(result);
  return PostgresRows(result);
}

absl::StatusOr<std::vector<PostgresRows>> PostgresConnection::RunAll(
    const std::vector<PostgresStatement>& statements) {
  std::vector<std::string> names;
  for (const PostgresStatement& one : statements) {
    std::string name;  // empty for what takes longer to prepare than to read
    if (one.sql != kCommit) {
      BALLAST_ASSIGN_OR_RETURN(name, Prepared(one.sql, one.values.data(), one.values.size()));
    }
    names.push_back(std::move(name));
  }
  if (PQenterPipelineMode(connection_) == 0) return Fail(nullptr);
  for (size_t i = 0; i < statements.size(); ++i) {
    const std::vector<PostgresValue>& values = statements[i].values;
    const Parameters parameters(values.data(), values.size());
    const int sent = names[i].empty()
                         ? PQsendQueryParams(connection_, statements[i].sql, 0, nullptr, nullptr,
                                             nullptr, nullptr, kBinary)
                         : PQsendQueryPrepared(connection_, names[i].c_str(), parameters.count(),
                                               parameters.data(), parameters.lengths(),
                                               parameters.formats(), kBinary);
    if (sent == 0) return Fail(nullptr);
  }
  if (PQpipelineSync(connection_) == 0) return Fail(nullptr);
  // Of each statement a result and a null, which ends it; then the sync's, alone. All are read, so
  // that the connection can be used again.
  std::vector<PostgresRows> rows;
  absl::Status failure;
  for (size_t i = 0; i < statements.size(); ++i) {
    PGresult* const result = PQgetResult(connection_);
    if (failure.ok() && Succeeded(result)) {
      rows.emplace_back(result);
    } else if (failure.ok()) {
      failure = Fail(result);
    } else {
      PQclear(result);
    }
    if (!alive()) return failure.ok() ? Fail(nullptr) : failure;
    PQclear(PQgetResult(connection_));
  }
  PQclear(PQgetResult(connection_));
  if (PQexitPipelineMode(connection_) == 0 && failure.ok()) failure = Fail(nullptr);
  if (!failure.ok()) return failure;
  return rows;
}

absl::Status PostgresConnection::Send(const char* sql,
                                      std::initializer_list<PostgresValue> values) {
  std::vector<Oid> types;
  for (const PostgresValue& value : values) types.push_back(OidOf(value.type()));
  const Parameters parameters(values.begin(), values.size());
  if (PQsendQueryParams(connection_, sql, parameters.count(), types.data(), parameters.data(),
                        parameters.lengths(), parameters.formats(), kBinary) == 0) {
    return Fail(nullptr);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> PostgresConnection::Receive(std::vector<PostgresNotification>& notifications) {
  if (PQconsumeInput(connection_) == 0) return Fail(nullptr);
  bool ended = false;
  while (!ended && PQisBusy(connection_) == 0) {
    PGresult* const result = PQgetResult(connection_);
    if (result != nullptr && !Succeeded(result)) return Fail(result);
    ended = result == nullptr;
    PQclear(result);
  }
  // Last, since those that have come with a result are found in reading that.
  while (PGnotify* const one = PQnotifies(connection_)) {
    notifications.push_back({one->be_pid, one->extra});
    PQfreemem(one);
  }
  return ended;
}

int PostgresConnection::socket() const { return PQsocket(connection_); }

absl::Status PostgresConnection::Commit(std::vector<PostgresStatement> last) {
  PassKillPoint("server.postgres.committing");
  last.push_back({kCommit, {}});
  const auto rows = RunAll(last);
  if (rows.ok()) {
    // A transaction in which a statement has failed is rolled back by COMMIT, without an error.
    if (rows->back().has_committed()) return absl::OkStatus();
    return MakeError(absl::StatusCode::kInternal, "STORE_STATEMENT",
                     "a statement of the transaction has failed, so nothing of it was kept");
  }
  // 57P..: the server goes down, or ends the session, perhaps after the commit.
  if (alive() && !sqlstate_.empty() && sqlstate_.substr(0, 3) != "57P") return rows.status();
  return MakeError(absl::StatusCode::kUnavailable, "COMMIT_UNKNOWN",
                   absl::StrCat("the connection was lost at the commit, so it is not known whether "
                                "the change was made; look, or try again: ",
                                rows.status().message()));
}

bool PostgresConnection::alive() const { return PQstatus(connection_) == CONNECTION_OK; }

bool PostgresConnection::idle() const {
  return alive() && PQpipelineStatus(connection_) == PQ_PIPELINE_OFF &&
         PQtransactionStatus(connection_) == PQTRANS_IDLE;
}

absl::Status PostgresConnection::Fail(PGresult* result) {
  const char* state = result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_SQLSTATE);
  sqlstate_ = state == nullptr ? "" : state;
  const char* primary =
      result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  const std::string said(absl::StripTrailingAsciiWhitespace(
      primary != nullptr ? primary : PQerrorMessage(connection_)));
  PQclear(result);
  const std::string message = absl::StrCat(
      "PostgreSQL: ", said, sqlstate_.empty() ? "" : absl::StrCat(" (", sqlstate_, ")"));
  const auto begins = [&](std::string_view prefix) {
    return std::string_view(sqlstate_).substr(0, prefix.size()) == prefix;
  };
  // Codes: PostgreSQL's manual, appendix A.
  if (sqlstate_ == "23505") {
    return MakeError(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS", message);
  }
  if (sqlstate_ == "23503") {
    return MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND", message);
  }
  if (sqlstate_ == "25006") {
    return MakeError(absl::StatusCode::kInternal, "STORE_READ_ONLY", message);
  }
  if (sqlstate_ == "53100") {
    return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                     absl::StrCat(message, "; free space and try again, nothing stored was lost"));
  }
  if (begins("XX001") || begins("XX002")) {
    return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                     absl::StrCat(message, "; restore a backup"));
  }
  if (sqlstate_ == "42501" || begins("3F")) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "STORE_NOT_ALLOWED",
                     absl::StrCat(message, "; let the user own the database or its schema"));
  }
  // Stopped for another's sake, or for want of connections, memory or time.
  if (begins("40") || begins("53") || sqlstate_ == "55P03" || sqlstate_ == "57014") {
    return WithRetry(MakeError(absl::StatusCode::kUnavailable, "STORE_BUSY", message),
                     absl::Seconds(1));
  }
  if (begins("22") || begins("42") || begins("0A")) {
    return MakeError(absl::StatusCode::kInternal, "STORE_STATEMENT", message);
  }
  return MakeError(absl::StatusCode::kUnavailable, "STORE_IO", message);
}

}  // namespace ballast::server
