// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_transaction.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/record_statements.h"

namespace ballast::server {
namespace {

Row RowAt(const SqliteStatement& statement) {
  Row row;
  row.scope = statement.TextAt(0);
  row.id = statement.TextAt(1);
  row.sequence = statement.IntAt(2);
  row.state = static_cast<int>(statement.IntAt(3));
  row.queue_key = statement.IntAt(4);
  row.bytes = statement.TextAt(5);
  return row;
}

// All rows of `statement`, made by `make`.
template <typename T, typename Make>
absl::StatusOr<std::vector<T>> Collect(SqliteStatement& statement, Make make) {
  std::vector<T> rows;
  while (true) {
    BALLAST_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    rows.push_back(make(statement));
  }
  statement.Reset();
  return rows;
}

absl::StatusOr<int64_t> Single(SqliteStatement& statement) {
  BALLAST_RETURN_IF_ERROR(statement.Step().status());
  const int64_t value = statement.IntAt(0);
  statement.Reset();
  return value;
}

}  // namespace

absl::StatusOr<std::optional<Row>> SqliteTransaction::Get(Kind kind, std::string_view scope,
                                                          std::string_view id, Hold) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).get));
  statement->Text(scope).Text(id);
  BALLAST_ASSIGN_OR_RETURN(auto rows, Collect<Row>(*statement, RowAt));
  if (rows.empty()) return std::optional<Row>();
  return std::optional<Row>(std::move(rows[0]));
}

absl::StatusOr<int64_t> SqliteTransaction::NextSequence(Kind kind, std::string_view scope) {
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const statement,
      connection_.Prepare(
          "INSERT INTO sequences (kind, scope, last) VALUES (?, ?, 1)"
          " ON CONFLICT (kind, scope) DO UPDATE SET last = last + 1 RETURNING last"));
  statement->Int(static_cast<int>(kind)).Text(scope);
  BALLAST_ASSIGN_OR_RETURN(
      const auto values,
      Collect<int64_t>(*statement, [](const SqliteStatement& s) { return s.IntAt(0); }));
  return values.at(0);
}

absl::StatusOr<int64_t> SqliteTransaction::Insert(Kind kind, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(const int64_t sequence, NextSequence(kind, row.scope));
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).insert));
  statement->Text(row.scope).Text(row.id).Int(sequence).Int(row.state).Int(row.queue_key);
  BALLAST_RETURN_IF_ERROR(statement->Blob(row.bytes).Run());
  return sequence;
}

absl::Status SqliteTransaction::Replace(Kind kind, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).replace));
  statement->Int(row.state).Int(row.queue_key).Blob(row.bytes).Text(row.scope).Text(row.id);
  BALLAST_ASSIGN_OR_RETURN(
      const auto changed,
      Collect<int64_t>(*statement, [](const SqliteStatement& s) { return s.IntAt(0); }));
  if (changed.empty()) {
    return MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND",
                     "the record " + row.id + " is not in the database");
  }
  return absl::OkStatus();
}

absl::Status SqliteTransaction::Delete(Kind kind, std::string_view scope, std::string_view id) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).erase));
  return statement->Text(scope).Text(id).Run();
}

absl::StatusOr<std::vector<Row>> SqliteTransaction::ListByScope(Kind kind, std::string_view scope,
                                                                int64_t before_sequence,
                                                                int limit) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).list_by_scope));
  statement->Text(scope).Int(before_sequence == 0 ? INT64_MAX : before_sequence).Int(limit);
  return Collect<Row>(*statement, RowAt);
}

absl::StatusOr<std::vector<Row>> SqliteTransaction::ListByState(Kind kind, int state,
                                                                const StateCursor& after,
                                                                int limit) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).list_by_state));
  statement->Int(state).Int(after.queue_key).Text(after.scope).Text(after.id).Int(limit);
  return Collect<Row>(*statement, RowAt);
}

absl::StatusOr<std::optional<int64_t>> SqliteTransaction::ShiftQueue(Kind kind,
                                                                     std::string_view scope,
                                                                     int state, int64_t from,
                                                                     int64_t by) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const first,
                           connection_.Prepare(StatementsFor(kind).first_to_shift));
  first->Text(scope).Int(state).Int(from);
  BALLAST_ASSIGN_OR_RETURN(const auto keys, Collect<int64_t>(*first, [](const SqliteStatement& s) {
                             return s.IntAt(0);
                           }));
  if (keys.empty()) return std::optional<int64_t>();
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const shift,
                           connection_.Prepare(StatementsFor(kind).shift_queue));
  BALLAST_RETURN_IF_ERROR(shift->Int(by).Text(scope).Int(state).Int(from).Run());
  return std::optional<int64_t>(keys.front());
}

absl::StatusOr<int64_t> SqliteTransaction::CountBefore(Kind kind, int state, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).count_before));
  statement->Text(row.scope).Int(state).Int(row.queue_key).Text(row.id);
  return Single(*statement);
}

absl::StatusOr<int64_t> SqliteTransaction::CountOfScope(Kind kind, std::string_view scope,
                                                        const std::vector<int>& states) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).count_of_scope));
  statement->Text(scope);
  for (size_t i = 0; i < kMostStates; ++i) statement->Int(states[std::min(i, states.size() - 1)]);
  return Single(*statement);
}

absl::StatusOr<std::optional<int64_t>> SqliteTransaction::LastQueueKey(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).last_queue_key));
  statement->Int(state);
  BALLAST_ASSIGN_OR_RETURN(
      const auto keys,
      Collect<int64_t>(*statement, [](const SqliteStatement& s) { return s.IntAt(0); }));
  return keys.empty() ? std::optional<int64_t>() : keys.front();
}

absl::StatusOr<int64_t> SqliteTransaction::CountState(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare(StatementsFor(kind).count_state));
  statement->Int(state);
  return Single(*statement);
}

absl::Status SqliteTransaction::AppendEvent(std::string_view scope, std::string_view job,
                                            const EventRow& event) {
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const statement,
      connection_.Prepare(
          "INSERT INTO job_events (scope, job, sequence, event) VALUES (?, ?, ?, ?)"));
  return statement->Text(scope).Text(job).Int(event.sequence).Blob(event.bytes).Run();
}

absl::StatusOr<std::vector<EventRow>> SqliteTransaction::ListEvents(std::string_view scope,
                                                                    std::string_view job,
                                                                    int64_t after_sequence,
                                                                    int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const statement,
      connection_.Prepare(
          "SELECT sequence, event FROM job_events"
          " WHERE scope = ? AND job = ? AND sequence > ? ORDER BY sequence LIMIT ?"));
  statement->Text(scope).Text(job).Int(after_sequence).Int(limit);
  return Collect<EventRow>(*statement, [](const SqliteStatement& s) {
    return EventRow{s.IntAt(0), s.TextAt(1)};
  });
}

absl::StatusOr<std::optional<RequestRow>> SqliteTransaction::GetRequest(
    std::string_view scope, std::string_view request_id) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare("SELECT payload_digest, result_name FROM requests"
                                               " WHERE scope = ? AND request_id = ?"));
  statement->Text(scope).Text(request_id);
  BALLAST_ASSIGN_OR_RETURN(auto rows, Collect<RequestRow>(*statement, [](const SqliteStatement& s) {
                             return RequestRow{s.TextAt(0), s.TextAt(1)};
                           }));
  if (rows.empty()) return std::optional<RequestRow>();
  return std::optional<RequestRow>(std::move(rows[0]));
}

absl::Status SqliteTransaction::PutRequest(std::string_view scope, std::string_view request_id,
                                           const RequestRow& request) {
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const statement,
      connection_.Prepare("INSERT INTO requests (scope, request_id, payload_digest, result_name)"
                          " VALUES (?, ?, ?, ?)"));
  statement->Text(scope).Text(request_id).Text(request.payload_digest).Text(request.result_name);
  return statement->Run();
}

absl::Status SqliteTransaction::AddGarbage(std::string_view blob_prefix, std::string_view holder) {
  const char* const sql = holder.empty()
                              ? "INSERT INTO garbage (blob_prefix, holder) VALUES (?, ?)"
                                " ON CONFLICT DO NOTHING"
                              : "INSERT INTO garbage (blob_prefix, holder) VALUES (?, ?)"
                                " ON CONFLICT (blob_prefix) DO UPDATE SET holder = excluded.holder";
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement, connection_.Prepare(sql));
  return statement->Text(blob_prefix).Text(holder).Run();
}

absl::StatusOr<std::vector<GarbageRow>> SqliteTransaction::ListGarbage(std::string_view after,
                                                                       int limit) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare("SELECT blob_prefix, holder FROM garbage"
                                               " WHERE blob_prefix > ? ORDER BY blob_prefix"
                                               " LIMIT ?"));
  statement->Text(after).Int(limit);
  return Collect<GarbageRow>(*statement, [](const SqliteStatement& s) {
    return GarbageRow{s.TextAt(0), s.TextAt(1)};
  });
}

absl::StatusOr<std::optional<GarbageRow>> SqliteTransaction::GetGarbage(
    std::string_view blob_prefix) {
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const statement,
      connection_.Prepare("SELECT blob_prefix, holder FROM garbage WHERE blob_prefix = ?"));
  statement->Text(blob_prefix);
  BALLAST_ASSIGN_OR_RETURN(const auto rows,
                           Collect<GarbageRow>(*statement, [](const SqliteStatement& s) {
                             return GarbageRow{s.TextAt(0), s.TextAt(1)};
                           }));
  return rows.empty() ? std::optional<GarbageRow>() : rows.front();
}

absl::Status SqliteTransaction::RemoveGarbage(std::string_view blob_prefix) {
  BALLAST_ASSIGN_OR_RETURN(SqliteStatement* const statement,
                           connection_.Prepare("DELETE FROM garbage WHERE blob_prefix = ?"));
  return statement->Text(blob_prefix).Run();
}

}  // namespace ballast::server
