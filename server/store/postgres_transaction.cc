// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_transaction.h"

#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/record_statements.h"

namespace ballast::server {
namespace {

using Value = PostgresValue;

Row RowAt(const PostgresRows& rows, int i) {
  Row row;
  row.scope = rows.TextAt(i, 0);
  row.id = rows.TextAt(i, 1);
  row.sequence = rows.IntAt(i, 2);
  row.state = static_cast<int>(rows.IntAt(i, 3));
  row.queue_key = rows.IntAt(i, 4);
  row.bytes = rows.TextAt(i, 5);
  return row;
}

// All rows, made by `make(rows, i)`.
template <typename Make>
auto Collect(const PostgresRows& rows, Make make) {
  std::vector<decltype(make(rows, 0))> made;
  made.reserve(static_cast<size_t>(rows.count()));
  for (int i = 0; i < rows.count(); ++i) made.push_back(make(rows, i));
  return made;
}

}  // namespace

absl::StatusOr<std::optional<Row>> PostgresTransaction::Get(Kind kind, std::string_view scope,
                                                            std::string_view id, Hold hold) {
  const RecordStatements& statements = StatementsFor(kind);
  const char* sql = statements.get;
  if (writes_ && hold == Hold::kShared) sql = statements.get_shared;
  if (writes_ && hold == Hold::kExclusive) sql = statements.get_exclusive;
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           connection_.Run(sql, {Value::Text(scope), Value::Text(id)}));
  if (rows.count() == 0) return std::optional<Row>();
  return std::optional<Row>(RowAt(rows, 0));
}

absl::StatusOr<int64_t> PostgresTransaction::Insert(Kind kind, const Row& row) {
  int64_t sequence = 0;
  {
    BALLAST_ASSIGN_OR_RETURN(
        const PostgresRows rows,
        connection_.Run("INSERT INTO sequences AS s (kind, scope, last) VALUES ($1, $2, 1)"
                        " ON CONFLICT (kind, scope) DO UPDATE SET last = s.last + 1 RETURNING last",
                        {Value::Int(static_cast<int>(kind)), Value::Text(row.scope)}));
    sequence = rows.IntAt(0, 0);
  }
  BALLAST_RETURN_IF_ERROR(
      connection_
          .Run(StatementsFor(kind).insert,
               {Value::Text(row.scope), Value::Text(row.id), Value::Int(sequence),
                Value::Int(row.state), Value::Int(row.queue_key), Value::Bytes(row.bytes)})
          .status());
  return sequence;
}

absl::Status PostgresTransaction::Replace(Kind kind, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows changed,
      connection_.Run(StatementsFor(kind).replace,
                      {Value::Int(row.state), Value::Int(row.queue_key), Value::Bytes(row.bytes),
                       Value::Text(row.scope), Value::Text(row.id)}));
  if (changed.count() > 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND",
                   "the record " + row.id + " is not in the database");
}

absl::Status PostgresTransaction::Delete(Kind kind, std::string_view scope, std::string_view id) {
  return connection_.Run(StatementsFor(kind).erase, {Value::Text(scope), Value::Text(id)}).status();
}

absl::StatusOr<std::vector<Row>> PostgresTransaction::ListByScope(Kind kind, std::string_view scope,
                                                                  int64_t before_sequence,
                                                                  int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection_.Run(
          StatementsFor(kind).list_by_scope,
          {Value::Text(scope), Value::Int(before_sequence == 0 ? INT64_MAX : before_sequence),
           Value::Int(limit)}));
  return Collect(rows, RowAt);
}

absl::StatusOr<std::vector<Row>> PostgresTransaction::ListByState(Kind kind, int state,
                                                                  const StateCursor& after,
                                                                  int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection_.Run(StatementsFor(kind).list_by_state,
                      {Value::Int(state), Value::Int(after.queue_key), Value::Text(after.scope),
                       Value::Text(after.id), Value::Int(limit)}));
  return Collect(rows, RowAt);
}

absl::StatusOr<int64_t> PostgresTransaction::CountBefore(Kind kind, int state, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           connection_.Run(StatementsFor(kind).count_before,
                                           {Value::Text(row.scope), Value::Int(state),
                                            Value::Int(row.queue_key), Value::Text(row.id)}));
  return rows.IntAt(0, 0);
}

absl::StatusOr<std::optional<int64_t>> PostgresTransaction::LastQueueKey(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection_.Run(StatementsFor(kind).last_queue_key, {Value::Int(state)}));
  return rows.count() == 0 ? std::optional<int64_t>() : rows.IntAt(0, 0);
}

absl::StatusOr<int64_t> PostgresTransaction::CountState(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           connection_.Run(StatementsFor(kind).count_state, {Value::Int(state)}));
  return rows.IntAt(0, 0);
}

absl::Status PostgresTransaction::AppendEvent(std::string_view scope, std::string_view job,
                                              const EventRow& event) {
  return connection_
      .Run("INSERT INTO job_events (scope, job, sequence, event) VALUES ($1, $2, $3, $4)",
           {Value::Text(scope), Value::Text(job), Value::Int(event.sequence),
            Value::Bytes(event.bytes)})
      .status();
}

absl::StatusOr<std::vector<EventRow>> PostgresTransaction::ListEvents(std::string_view scope,
                                                                      std::string_view job,
                                                                      int64_t after_sequence,
                                                                      int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection_.Run(
          "SELECT sequence, event FROM job_events"
          " WHERE scope = $1 AND job = $2 AND sequence > $3 ORDER BY sequence LIMIT $4",
          {Value::Text(scope), Value::Text(job), Value::Int(after_sequence), Value::Int(limit)}));
  return Collect(rows, [](const PostgresRows& r, int i) {
    return EventRow{r.IntAt(i, 0), r.TextAt(i, 1)};
  });
}

absl::StatusOr<std::optional<RequestRow>> PostgresTransaction::GetRequest(
    std::string_view scope, std::string_view request_id) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           connection_.Run("SELECT payload_digest, result_name FROM requests"
                                           " WHERE scope = $1 AND request_id = $2",
                                           {Value::Text(scope), Value::Text(request_id)}));
  if (rows.count() == 0) return std::optional<RequestRow>();
  return std::optional<RequestRow>(RequestRow{rows.TextAt(0, 0), rows.TextAt(0, 1)});
}

absl::Status PostgresTransaction::PutRequest(std::string_view scope, std::string_view request_id,
                                             const RequestRow& request) {
  return connection_
      .Run(
          "INSERT INTO requests (scope, request_id, payload_digest, result_name)"
          " VALUES ($1, $2, $3, $4)",
          {Value::Text(scope), Value::Text(request_id), Value::Text(request.payload_digest),
           Value::Text(request.result_name)})
      .status();
}

absl::Status PostgresTransaction::AddGarbage(std::string_view blob_prefix) {
  return connection_
      .Run("INSERT INTO garbage (blob_prefix) VALUES ($1) ON CONFLICT DO NOTHING",
           {Value::Text(blob_prefix)})
      .status();
}

absl::StatusOr<std::vector<std::string>> PostgresTransaction::ListGarbage(int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection_.Run("SELECT blob_prefix FROM garbage ORDER BY blob_prefix LIMIT $1",
                      {Value::Int(limit)}));
  return Collect(rows, [](const PostgresRows& r, int i) { return r.TextAt(i, 0); });
}

absl::Status PostgresTransaction::RemoveGarbage(std::string_view blob_prefix) {
  return connection_.Run("DELETE FROM garbage WHERE blob_prefix = $1", {Value::Text(blob_prefix)})
      .status();
}

}  // namespace ballast::server
