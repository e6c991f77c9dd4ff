// SPDX-License-Identifier: Apache-2.0
// The typed view of a Transaction: records of record.proto by kind, and events. States and queue
// keys are taken from the record, so that they cannot disagree with it.
#ifndef BALLAST_SERVER_CORE_RECORDS_H_
#define BALLAST_SERVER_CORE_RECORDS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

google::protobuf::Timestamp ToTimestamp(absl::Time time);
absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp);

inline Kind KindOf(const BaseModelRecord&) { return Kind::kBaseModel; }
inline Kind KindOf(const DatasetRecord&) { return Kind::kDataset; }
inline Kind KindOf(const JobRecord&) { return Kind::kJob; }
inline Kind KindOf(const VectorRecord&) { return Kind::kVector; }
inline Kind KindOf(const TenantRecord&) { return Kind::kTenant; }
inline Kind KindOf(const UsageRecord&) { return Kind::kUsage; }
inline Kind KindOf(const WorkerRecord&) { return Kind::kWorker; }
inline Kind KindOf(const ServerRecord&) { return Kind::kServer; }
inline Kind KindOf(const SampleRecord&) { return Kind::kSample; }

// Keys and bytes of a record; `sequence` is left 0.
Row ToRow(const BaseModelRecord& record);
Row ToRow(const DatasetRecord& record);
Row ToRow(const JobRecord& record);
Row ToRow(const VectorRecord& record);
Row ToRow(const TenantRecord& record);
Row ToRow(const UsageRecord& record);
Row ToRow(const WorkerRecord& record);
Row ToRow(const ServerRecord& record);
Row ToRow(const SampleRecord& record);

// OK when the bytes of `row` are such a record, which is then `record`. DATA_LOSS (STORE_CORRUPT).
template <typename Record>
absl::Status ParseRow(const Row& row, Record& record) {
  if (record.ParseFromString(row.bytes)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   "the record " + row.id + " in the database is damaged; restore a backup");
}

// The record of a row. DATA_LOSS (STORE_CORRUPT).
template <typename Record>
absl::StatusOr<Record> FromRow(const Row& row) {
  Record record;
  BALLAST_RETURN_IF_ERROR(ParseRow(row, record));
  return record;
}

// A job's place is the row's, which may have been shifted (Transaction::ShiftQueue).
template <>
absl::StatusOr<JobRecord> FromRow<JobRecord>(const Row& row);

template <typename Record>
absl::StatusOr<std::optional<Record>> GetRecord(Transaction& tx, std::string_view scope,
                                                std::string_view id, Hold hold = Hold::kNone) {
  BALLAST_ASSIGN_OR_RETURN(const auto row, tx.Get(KindOf(Record()), scope, id, hold));
  if (!row.has_value()) return std::optional<Record>();
  BALLAST_ASSIGN_OR_RETURN(Record record, FromRow<Record>(*row));
  return std::optional<Record>(std::move(record));
}

template <typename Record>
absl::Status InsertRecord(Transaction& tx, const Record& record) {
  return tx.Add(KindOf(record), ToRow(record));
}

template <typename Record>
absl::Status ReplaceRecord(Transaction& tx, const Record& record) {
  return tx.Replace(KindOf(record), ToRow(record));
}

// All records of all scopes in `state`, in queue order, until `visit` returns false.
template <typename Record, typename Visit>
absl::Status ForEachInState(Transaction& tx, int state, Visit visit) {
  StateCursor cursor;
  // Most visits end at one of the first rows.
  constexpr int kFirstPage = 4, kPage = 64;
  for (int page = kFirstPage;; page = kPage) {
    BALLAST_ASSIGN_OR_RETURN(const auto rows,
                             tx.ListByState(KindOf(Record()), state, cursor, page));
    for (const Row& row : rows) {
      BALLAST_ASSIGN_OR_RETURN(Record record, FromRow<Record>(row));
      BALLAST_ASSIGN_OR_RETURN(const bool more, visit(std::move(record)));
      if (!more) return absl::OkStatus();
    }
    if (static_cast<int>(rows.size()) < page) return absl::OkStatus();
    cursor = {rows.back().queue_key, rows.back().scope, rows.back().id};
  }
}

// The next event of a job as a row, with `record.last_event` advanced; it stores nothing.
EventRow NextEvent(JobRecord& record, v1::JobEvent event, absl::Time now);

// Appends an event to a job and advances record.last_event. The caller stores the record in the
// same transaction.
absl::Status AppendJobEvent(Transaction& tx, JobRecord& record, v1::JobEvent event, absl::Time now);

// Names of blobs.
std::string DatasetBlob(std::string_view tenant, std::string_view id);
// What links of an upload lead to, a prefix; `upload` is the upload's own id.
std::string IncomingBlobs(std::string_view tenant, std::string_view id, std::string_view upload);
std::string JobBlobs(std::string_view tenant, std::string_view id);
std::string AttemptBlobs(const JobRecord& record, int64_t epoch);
std::string VectorBlobs(std::string_view id);
std::string BaseModelBlobs(std::string_view digest);
std::string GateBlob(std::string_view base_id, std::string_view id);
std::string SafetyRowsBlob(std::string_view base_id, std::string_view id);
std::string ScreenBlobs(std::string_view base_id, std::string_view id);  // a prefix

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_RECORDS_H_
