// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_transaction.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/record_statements.h"

namespace ballast::server {
namespace {

using Value = PostgresValue;

// Statements that are sent together: meanwhile nobody reads their results, which must fit into the
// buffers of the connection.
constexpr size_t kMostTogether = 100;

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

// Values of insert_next.
std::vector<Value> ToInsert(const Row& row) {
  return {Value::Text(row.scope), Value::Text(row.id), Value::Int(row.state),
          Value::Int(row.queue_key), Value::Bytes(row.bytes)};
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

PostgresTransaction::PostgresTransaction(PostgresConnection& connection, const std::string& owner)
    : connection_(connection), writes_(false), owner_(owner) {
  connection_.ForgetFailure();
  later_.push_back({PostgresConnection::kBeginReadOnly, {}});
}

PostgresTransaction::PostgresTransaction(PostgresConnection& connection, const std::string& owner,
                                         PostgresStatement stamp)
    : connection_(connection), writes_(true), owner_(owner), stamp_(std::move(stamp)) {
  connection_.ForgetFailure();
  later_.push_back({PostgresConnection::kBegin, {}});
}

absl::Status PostgresTransaction::Commit() {
  const bool wrote = writes_ && !stamp_.has_value();
  if (!begun_ && !wrote) return absl::OkStatus();
  return connection_.Commit(std::exchange(later_, {}));
}

absl::StatusOr<std::vector<PostgresRows>> PostgresTransaction::RunAll(
    std::vector<PostgresStatement> statements) {
  std::vector<PostgresStatement> all = std::exchange(later_, {});
  const size_t put_off = all.size();
  std::move(statements.begin(), statements.end(), std::back_inserter(all));
  BALLAST_ASSIGN_OR_RETURN(auto rows, connection_.RunAll(all));
  begun_ = true;
  texts_.clear();
  std::vector<PostgresRows> wanted;
  wanted.reserve(rows.size() - put_off);
  for (size_t i = put_off; i < rows.size(); ++i) wanted.push_back(std::move(rows[i]));
  return wanted;
}

absl::StatusOr<PostgresRows> PostgresTransaction::Run(const char* sql,
                                                      std::vector<PostgresValue> values) {
  std::vector<PostgresStatement> one;
  one.push_back({sql, std::move(values)});
  BALLAST_ASSIGN_OR_RETURN(auto rows, RunAll(std::move(one)));
  return std::move(rows.front());
}

void PostgresTransaction::Stamp() {
  if (stamp_.has_value()) later_.push_back(*std::move(stamp_));
  stamp_.reset();
}

absl::StatusOr<PostgresRows> PostgresTransaction::Write(const char* sql,
                                                        std::vector<PostgresValue> values) {
  Stamp();
  return Run(sql, std::move(values));
}

absl::Status PostgresTransaction::WriteLater(const char* sql,
                                             const std::vector<PostgresValue>& values) {
  if (!writes_) return Run(sql, values).status();  // which PostgreSQL refuses
  Stamp();
  PostgresStatement statement{sql, {}};
  const auto kept = [&](const PostgresValue& value) -> std::string_view {
    return texts_.emplace_back(value.text());
  };
  for (const PostgresValue& value : values) {
    switch (value.type()) {
      case PostgresValue::Type::kText:
        statement.values.push_back(PostgresValue::Text(kept(value)));
        break;
      case PostgresValue::Type::kBytes:
        statement.values.push_back(PostgresValue::Bytes(kept(value)));
        break;
      case PostgresValue::Type::kInt:
        statement.values.push_back(value);
        break;
    }
  }
  later_.push_back(std::move(statement));
  return later_.size() < kMostTogether ? absl::OkStatus() : RunAll({}).status();
}

const char* PostgresTransaction::GetStatement(Kind kind, Hold hold) const {
  const RecordStatements& statements = StatementsFor(kind);
  if (writes_ && hold == Hold::kShared) return statements.get_shared;
  if (writes_ && hold == Hold::kExclusive) return statements.get_exclusive;
  if (writes_ && hold == Hold::kExclusiveOrNone) return statements.get_unless_held;
  return statements.get;
}

absl::Status PostgresTransaction::Prefetch(const std::vector<RowKey>& keys) {
  std::vector<const RowKey*> asked;
  for (const RowKey& key : keys) {
    // What is held so already stays as it is.
    const auto known = known_.find({key.kind, key.scope, key.id});
    const bool is_held = known != known_.end() && known->second.hold != Hold::kNone &&
                         known->second.hold >= std::min(key.hold, Hold::kExclusive);
    if (!is_held) asked.push_back(&key);
    if (asked.size() < kMostTogether) continue;
    BALLAST_RETURN_IF_ERROR(PrefetchAll(std::exchange(asked, {})));
  }
  return asked.empty() ? absl::OkStatus() : PrefetchAll(asked);
}

absl::Status PostgresTransaction::PrefetchAll(const std::vector<const RowKey*>& keys) {
  std::vector<PostgresStatement> statements;
  for (const RowKey* key : keys) {
    statements.push_back(
        {GetStatement(key->kind, key->hold), {Value::Text(key->scope), Value::Text(key->id)}});
  }
  BALLAST_ASSIGN_OR_RETURN(const auto found, RunAll(std::move(statements)));
  for (size_t i = 0; i < keys.size(); ++i) {
    const RowKey& key = *keys[i];
    if (key.hold == Hold::kExclusiveOrNone && found[i].count() == 0) {
      skipped_.insert({key.kind, key.scope, key.id});
      continue;
    }
    known_[{key.kind, key.scope, key.id}] = {
        key.hold, found[i].count() == 0 ? std::nullopt : std::optional<Row>(RowAt(found[i], 0))};
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Row>> PostgresTransaction::Get(Kind kind, std::string_view scope,
                                                            std::string_view id, Hold hold) {
  const Key key = {kind, std::string(scope), std::string(id)};
  const auto known = known_.find(key);
  if (known != known_.end() && known->second.hold >= std::min(hold, Hold::kExclusive)) {
    return known->second.row;
  }
  if (hold == Hold::kExclusiveOrNone && skipped_.count(key) != 0) return std::optional<Row>();
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run(GetStatement(kind, hold), {Value::Text(scope), Value::Text(id)}));
  std::optional<Row> row;
  if (rows.count() > 0) row = RowAt(rows, 0);
  // What is held stays as it is; what is not there cannot be held.
  if (writes_ && hold != Hold::kNone && row.has_value()) known_[key] = {hold, row};
  return row;
}

absl::StatusOr<int64_t> PostgresTransaction::Insert(Kind kind, const Row& row) {
  Forget(kind, row.scope, row.id);
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows inserted,
                           Write(StatementsFor(kind).insert_next, ToInsert(row)));
  return inserted.IntAt(0, 0);
}

absl::Status PostgresTransaction::Add(Kind kind, const Row& row) {
  Forget(kind, row.scope, row.id);
  return WriteLater(StatementsFor(kind).insert_next, ToInsert(row));
}

absl::Status PostgresTransaction::Replace(Kind kind, const Row& row) {
  const std::vector<Value> values = {Value::Int(row.state), Value::Int(row.queue_key),
                                     Value::Bytes(row.bytes), Value::Text(row.scope),
                                     Value::Text(row.id)};
  const auto known = known_.find({kind, row.scope, row.id});
  if (known != known_.end() && known->second.row.has_value()) {
    const int64_t sequence = known->second.row->sequence;
    known->second.row = row;
    known->second.row->sequence = sequence;
    // It is there as long as it is held.
    if (known->second.hold >= Hold::kExclusive) {
      return WriteLater(StatementsFor(kind).replace, values);
    }
  }
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows changed, Write(StatementsFor(kind).replace, values));
  if (changed.count() > 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND",
                   "the record " + row.id + " is not in the database");
}

absl::Status PostgresTransaction::Delete(Kind kind, std::string_view scope, std::string_view id) {
  Forget(kind, scope, id);
  return WriteLater(StatementsFor(kind).erase, {Value::Text(scope), Value::Text(id)});
}

absl::StatusOr<std::vector<Row>> PostgresTransaction::ListByScope(Kind kind, std::string_view scope,
                                                                  int64_t before_sequence,
                                                                  int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      Run(StatementsFor(kind).list_by_scope,
          {Value::Text(scope), Value::Int(before_sequence == 0 ? INT64_MAX : before_sequence),
           Value::Int(limit)}));
  return Collect(rows, RowAt);
}

absl::StatusOr<std::vector<Row>> PostgresTransaction::ListByState(Kind kind, int state,
                                                                  const StateCursor& after,
                                                                  int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      Run(StatementsFor(kind).list_by_state,
          {Value::Int(state), Value::Int(after.queue_key), Value::Text(after.scope),
           Value::Text(after.id), Value::Int(limit)}));
  return Collect(rows, RowAt);
}

absl::StatusOr<std::optional<int64_t>> PostgresTransaction::ShiftQueue(Kind kind,
                                                                       std::string_view scope,
                                                                       int state, int64_t from,
                                                                       int64_t by) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows, Write(StatementsFor(kind).shift_unheld,
                                                          {Value::Text(scope), Value::Int(state),
                                                           Value::Int(from), Value::Int(by)}));
  for (auto& [key, known] : known_) {
    if (std::get<0>(key) != kind || std::get<1>(key) != scope || !known.row.has_value()) continue;
    if (known.row->state == state && known.row->queue_key >= from) known.row->queue_key += by;
  }
  return rows.count() == 0 ? std::optional<int64_t>() : rows.IntAt(0, 0);
}

absl::StatusOr<int64_t> PostgresTransaction::CountBefore(Kind kind, int state, const Row& row) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      Run(StatementsFor(kind).count_before, {Value::Text(row.scope), Value::Int(state),
                                             Value::Int(row.queue_key), Value::Text(row.id)}));
  return rows.IntAt(0, 0);
}

absl::StatusOr<int64_t> PostgresTransaction::CountOfScope(Kind kind, std::string_view scope,
                                                          const std::vector<int>& states) {
  const auto state = [&](size_t i) { return Value::Int(states[std::min(i, states.size() - 1)]); };
  static_assert(kMostStates == 4);
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run(StatementsFor(kind).count_of_scope,
                               {Value::Text(scope), state(0), state(1), state(2), state(3)}));
  return rows.IntAt(0, 0);
}

absl::StatusOr<std::optional<int64_t>> PostgresTransaction::LastQueueKey(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run(StatementsFor(kind).last_queue_key, {Value::Int(state)}));
  return rows.count() == 0 ? std::optional<int64_t>() : rows.IntAt(0, 0);
}

absl::StatusOr<int64_t> PostgresTransaction::CountState(Kind kind, int state) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run(StatementsFor(kind).count_state, {Value::Int(state)}));
  return rows.IntAt(0, 0);
}

absl::Status PostgresTransaction::AppendEvent(std::string_view scope, std::string_view job,
                                              const EventRow& event) {
  return WriteLater("INSERT INTO job_events (scope, job, sequence, event) VALUES ($1, $2, $3, $4)",
                    {Value::Text(scope), Value::Text(job), Value::Int(event.sequence),
                     Value::Bytes(event.bytes)});
}

absl::StatusOr<std::vector<EventRow>> PostgresTransaction::ListEvents(std::string_view scope,
                                                                      std::string_view job,
                                                                      int64_t after_sequence,
                                                                      int limit) {
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      Run("SELECT sequence, event FROM job_events"
          " WHERE scope = $1 AND job = $2 AND sequence > $3 ORDER BY sequence LIMIT $4",
          {Value::Text(scope), Value::Text(job), Value::Int(after_sequence), Value::Int(limit)}));
  return Collect(rows, [](const PostgresRows& r, int i) {
    return EventRow{r.IntAt(i, 0), r.TextAt(i, 1)};
  });
}

absl::StatusOr<std::optional<RequestRow>> PostgresTransaction::GetRequest(
    std::string_view scope, std::string_view request_id) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run("SELECT payload_digest, result_name FROM requests"
                               " WHERE scope = $1 AND request_id = $2",
                               {Value::Text(scope), Value::Text(request_id)}));
  if (rows.count() == 0) return std::optional<RequestRow>();
  return std::optional<RequestRow>(RequestRow{rows.TextAt(0, 0), rows.TextAt(0, 1)});
}

absl::Status PostgresTransaction::PutRequest(std::string_view scope, std::string_view request_id,
                                             const RequestRow& request) {
  return WriteLater(
      "INSERT INTO requests (scope, request_id, payload_digest, result_name)"
      " VALUES ($1, $2, $3, $4)",
      {Value::Text(scope), Value::Text(request_id), Value::Text(request.payload_digest),
       Value::Text(request.result_name)});
}

absl::Status PostgresTransaction::AddGarbage(std::string_view blob_prefix,
                                             std::string_view holder) {
  const char* const sql = holder.empty()
                              ? "INSERT INTO garbage (blob_prefix, holder) VALUES ($1, $2)"
                                " ON CONFLICT DO NOTHING"
                              : "INSERT INTO garbage (blob_prefix, holder) VALUES ($1, $2)"
                                " ON CONFLICT (blob_prefix) DO UPDATE SET holder = excluded.holder";
  return WriteLater(sql, {Value::Text(blob_prefix), Value::Text(holder)});
}

absl::StatusOr<std::vector<GarbageRow>> PostgresTransaction::ListGarbage(std::string_view after,
                                                                         int limit) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows,
                           Run("SELECT blob_prefix, holder FROM garbage"
                               " WHERE blob_prefix > $1 ORDER BY blob_prefix LIMIT $2",
                               {Value::Text(after), Value::Int(limit)}));
  return Collect(rows, [](const PostgresRows& r, int i) {
    return GarbageRow{r.TextAt(i, 0), r.TextAt(i, 1)};
  });
}

absl::StatusOr<std::optional<GarbageRow>> PostgresTransaction::GetGarbage(
    std::string_view blob_prefix) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows rows, Run("SELECT blob_prefix, holder FROM garbage"
                                                        " WHERE blob_prefix = $1 FOR UPDATE",
                                                        {Value::Text(blob_prefix)}));
  if (rows.count() == 0) return std::optional<GarbageRow>();
  return std::optional<GarbageRow>(GarbageRow{rows.TextAt(0, 0), rows.TextAt(0, 1)});
}

absl::Status PostgresTransaction::RemoveGarbage(std::string_view blob_prefix) {
  return WriteLater("DELETE FROM garbage WHERE blob_prefix = $1", {Value::Text(blob_prefix)});
}

}  // namespace ballast::server
