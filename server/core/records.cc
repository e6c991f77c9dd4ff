// SPDX-License-Identifier: Apache-2.0
#include "server/core/records.h"

#include "absl/strings/str_cat.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

int64_t Micros(const google::protobuf::Timestamp& timestamp) {
  return absl::ToUnixMicros(FromTimestamp(timestamp));
}

// Of a record without scope, state and place.
template <typename Record>
Row RowOf(const Record& record) {
  Row row;
  row.id = record.id();
  row.bytes = record.SerializeAsString();
  return row;
}

}  // namespace

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp timestamp;
  const int64_t micros = absl::ToUnixMicros(time);
  timestamp.set_seconds(micros / 1'000'000);
  timestamp.set_nanos(static_cast<int32_t>(micros % 1'000'000) * 1000);
  return timestamp;
}

absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

Row ToRow(const BaseModelRecord& record) {
  Row row = RowOf(record);
  row.queue_key = Micros(record.model().create_time());
  return row;
}

Row ToRow(const DatasetRecord& record) {
  Row row;
  row.scope = record.tenant();
  row.id = record.id();
  row.state = record.dataset().state();
  row.queue_key = Micros(record.dataset().create_time());
  row.bytes = record.SerializeAsString();
  return row;
}

template <>
absl::StatusOr<JobRecord> FromRow<JobRecord>(const Row& row) {
  JobRecord record;
  BALLAST_RETURN_IF_ERROR(ParseRow(row, record));
  if (record.job().state() == v1::FineTuningJob::QUEUED && record.has_start_tag()) {
    const int64_t by = row.queue_key - record.start_tag();
    record.set_start_tag(record.start_tag() + by);
    record.set_finish_tag(record.finish_tag() + by);
  }
  return record;
}

Row ToRow(const JobRecord& record) {
  Row row;
  row.scope = record.tenant();
  row.id = record.id();
  row.state = record.job().state();
  // What waits for an operator is in the order of creation.
  const bool queues = record.job().state() != v1::FineTuningJob::WITHHELD;
  row.queue_key =
      queues && record.has_start_tag() ? record.start_tag() : Micros(record.job().create_time());
  row.bytes = record.SerializeAsString();
  return row;
}

Row ToRow(const VectorRecord& record) {
  Row row = RowOf(record);
  row.state = record.vector().state();
  row.queue_key = Micros(record.vector().create_time());
  return row;
}

Row ToRow(const TenantRecord& record) {
  Row row = RowOf(record);
  row.state = record.standing().state();
  return row;
}

Row ToRow(const UsageRecord& record) {
  Row row;
  row.scope = record.tenant();
  row.id = record.usage().month();
  row.bytes = record.SerializeAsString();
  return row;
}

Row ToRow(const WorkerRecord& record) { return RowOf(record); }

Row ToRow(const ServerRecord& record) { return RowOf(record); }

Row ToRow(const SampleRecord& record) {
  Row row;
  row.scope = record.server();
  row.id = record.order().sample_id();
  row.state = record.taken_by().empty() ? 0 : 1;
  row.queue_key = Micros(record.create_time());
  row.bytes = record.SerializeAsString();
  return row;
}

EventRow NextEvent(JobRecord& record, v1::JobEvent event, absl::Time now) {
  event.set_sequence(record.last_event() + 1);
  *event.mutable_time() = ToTimestamp(now);
  record.set_last_event(event.sequence());
  return {.sequence = event.sequence(), .bytes = event.SerializeAsString()};
}

absl::Status AppendJobEvent(Transaction& tx, JobRecord& record, v1::JobEvent event,
                            absl::Time now) {
  const EventRow row = NextEvent(record, std::move(event), now);
  return tx.AppendEvent(record.tenant(), record.id(), row);
}

std::string DatasetBlob(std::string_view tenant, std::string_view id) {
  return absl::StrCat("datasets/", View(tenant), "/", View(id));
}
std::string IncomingBlobs(std::string_view tenant, std::string_view id, std::string_view upload) {
  return absl::StrCat("incoming/", View(tenant), "/", View(id), "/", View(upload));
}
std::string JobBlobs(std::string_view tenant, std::string_view id) {
  return absl::StrCat("jobs/", View(tenant), "/", View(id));
}
std::string AttemptBlobs(const JobRecord& record, int64_t epoch) {
  return absl::StrCat(JobBlobs(record.tenant(), record.id()), "/attempts/", epoch);
}
std::string VectorBlobs(std::string_view id) { return absl::StrCat("vectors/", View(id)); }
std::string BaseModelBlobs(std::string_view digest) {
  return absl::StrCat("baseModels/", View(digest.substr(digest.find(':') + 1)));
}
std::string SafetyRowsBlob(std::string_view base_id, std::string_view id) {
  return absl::StrCat("safetyRows/", View(base_id), "/", View(id));
}
std::string ScreenBlobs(std::string_view base_id, std::string_view id) {
  return absl::StrCat("screens/", View(base_id), "/", View(id));
}
std::string GateBlob(std::string_view base_id, std::string_view id) {
  return absl::StrCat("gates/", View(base_id), "/", View(id));
}

}  // namespace ballast::server
