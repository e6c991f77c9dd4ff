// SPDX-License-Identifier: Apache-2.0
// What of DatasetCatalog is about uploads: through the server, and past it by links.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/core/blob_hold.h"
#include "server/core/dataset_catalog.h"
#include "server/core/dataset_rules.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"

namespace ballast::server {

using v1::Dataset;

absl::Status UploadInProgress(const std::string& name) {
  return WithRetry(
      MakeError(absl::StatusCode::kAborted, "UPLOAD_IN_PROGRESS",
                absl::StrCat("another upload is writing to ", name,
                             "; let it finish or end it, then go on from GetUploadStatus")),
      absl::Seconds(1));
}

namespace {

// Uploads by links that a tenant may have open at once.
constexpr int kMostDirectUploads = 20;
// Parts of one, in which larger files have larger parts.
constexpr int64_t kMostParts = 1000;
// For how long nobody asks for links to an upload that is given up.
constexpr absl::Duration kForgotten = absl::Hours(24);
// The longest that any link is valid (config.proto), with some to spare.
constexpr absl::Duration kLinksEnd = absl::Minutes(61);
constexpr absl::Duration kBetweenSweeps = absl::Minutes(5);

absl::Status UploadFinished(const DatasetRecord& record) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "UPLOAD_FINISHED",
                   absl::StrCat(record.dataset().name(),
                                " has its bytes already; create another data set for other rows"));
}

// OK when the upload is at this server.
absl::Status CheckUploadIsHere(const Transaction& tx, const JobStore& store,
                               const DatasetRecord& record) {
  if (!store.shared() || record.written_at() == tx.owner()) return absl::OkStatus();
  return UploadInProgress(record.dataset().name());
}

// Bytes of a tenant's data sets, those that are declared for uploads by links among them, and the
// blobs of those whose upload has not ended.
struct StoredDatasets {
  int64_t bytes = 0;
  int direct_uploads = 0;
  std::vector<std::string> unfinished;
};

// Those of all but `except`.
absl::StatusOr<StoredDatasets> DatasetsOf(Transaction& tx, const std::string& tenant,
                                          const std::string& except) {
  constexpr int kPage = 100;
  StoredDatasets found;
  for (int64_t before = 0;;) {
    BALLAST_ASSIGN_OR_RETURN(const auto rows,
                             tx.ListByScope(Kind::kDataset, tenant, before, kPage));
    for (const Row& row : rows) {
      if (row.id == except) continue;
      BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<DatasetRecord>(row));
      if (record.dataset().state() == Dataset::AWAITING_UPLOAD) {
        found.unfinished.push_back(record.blob());
        found.bytes += record.direct_upload().size_bytes();
        found.direct_uploads += record.has_direct_upload() ? 1 : 0;
      } else {
        found.bytes += record.dataset().size_bytes();
      }
    }
    if (rows.size() < kPage) return found;
    before = rows.back().sequence;
  }
}

// OK when `size_bytes` more than the `stored` ones are within the quota, which may be none.
absl::Status CheckQuotaOfBytes(int64_t stored, int64_t size_bytes, const TenantQuota& quota) {
  if (quota.max_dataset_bytes == 0 || stored + size_bytes <= quota.max_dataset_bytes) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, "QUOTA_DATASET_BYTES",
      absl::StrCat("your data sets have ", stored, " bytes, and with ", size_bytes,
                   " more they would go beyond your quota of ", quota.max_dataset_bytes,
                   "; delete some, or ask the operator for more"),
      {{"limit", absl::StrCat(quota.max_dataset_bytes)}});
}

}  // namespace

absl::Status DatasetCatalog::CheckRoom(
    const std::string& tenant, int64_t size_bytes,
    const std::function<absl::StatusOr<int64_t>(const std::string& blob)>& unfinished,
    const std::string& except) {
  const TenantQuota& quota = quotas_.Of(tenant);
  if (quota.max_dataset_bytes == 0) return absl::OkStatus();
  StoredDatasets stored;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(stored, DatasetsOf(tx, tenant, except));
    return absl::OkStatus();
  }));
  // Outside the transaction: it may ask a store behind a network.
  for (const std::string& blob : stored.unfinished) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t bytes, unfinished(blob));
    stored.bytes += bytes;
  }
  return CheckQuotaOfBytes(stored.bytes, size_bytes, quota);
}

absl::StatusOr<DatasetRecord> DatasetCatalog::BeginUpload(const std::string& tenant,
                                                          const TenantName& name) {
  BALLAST_ASSIGN_OR_RETURN(DatasetRecord record, GetRecordOf(tenant, name));
  if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
  if (!store_.shared() && !record.has_direct_upload()) return record;
  DirectUploadRecord given_up;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    if (store_.shared()) record.set_written_at(store_.owner());
    given_up = record.direct_upload();
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
    return ReplaceRecord(tx, record);
  }));
  CollectAgain(given_up);
  return record;
}

absl::Status DatasetCatalog::EndUpload(const TenantName& name) {
  if (!store_.shared()) return absl::OkStatus();
  return store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<DatasetRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value() || record->written_at() != store_.owner()) return absl::OkStatus();
    record->clear_written_at();
    return ReplaceRecord(tx, *record);
  });
}

absl::Status DatasetCatalog::CheckUpload(const TenantName& name) {
  if (!store_.shared()) return absl::OkStatus();
  return store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<DatasetRecord>(tx, name.tenant, name.id));
    if (!record.has_value()) return DatasetNotFound(name);
    return CheckUploadIsHere(tx, store_, *record);
  });
}

absl::StatusOr<Dataset> DatasetCatalog::FinishUpload(const std::string& tenant,
                                                     const TenantName& name, int64_t size_bytes,
                                                     const std::string& digest,
                                                     const std::string& copied_to) {
  DatasetRecord record;
  DirectUploadRecord ended;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsHere(tx, store_, record));
    record.clear_written_at();
    if (const TenantQuota& quota = quotas_.Of(tenant); quota.max_dataset_bytes != 0) {
      BALLAST_ASSIGN_OR_RETURN(const StoredDatasets stored, DatasetsOf(tx, tenant, name.id));
      BALLAST_RETURN_IF_ERROR(CheckQuotaOfBytes(stored.bytes, size_bytes, quota));
    }
    ended = record.direct_upload();
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
    if (!copied_to.empty()) {
      BALLAST_RETURN_IF_ERROR(NameBlobs(tx, copied_to));
      // What an upload through the server had begun.
      BALLAST_RETURN_IF_ERROR(tx.AddGarbage(record.blob()));
      record.set_blob(copied_to);
    }
    SetDatasetState(record, Dataset::VALIDATING);
    record.mutable_dataset()->set_size_bytes(size_bytes);
    record.mutable_dataset()->set_digest(digest);
    return ReplaceRecord(tx, record);
  }));
  PassKillPoint("server.upload.recorded");
  CollectAgain(ended);
  listener_.DatasetUploaded();
  return record.dataset();
}

absl::StatusOr<DirectUploadRecord> DatasetCatalog::StartDirectUpload(absl::Time now,
                                                                     const std::string& tenant,
                                                                     const TenantName& name,
                                                                     int64_t size_bytes,
                                                                     int64_t part_bytes) {
  const std::string id = ids_.NewId();
  DatasetRecord record;
  DirectUploadRecord given_up;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    given_up.Clear();
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    if (record.direct_upload().size_bytes() != size_bytes) {
      BALLAST_ASSIGN_OR_RETURN(const StoredDatasets stored, DatasetsOf(tx, tenant, name.id));
      BALLAST_RETURN_IF_ERROR(CheckQuotaOfBytes(stored.bytes, size_bytes, quotas_.Of(tenant)));
      if (stored.direct_uploads >= kMostDirectUploads) {
        return MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_UPLOADS",
                         absl::StrCat("you have ", stored.direct_uploads,
                                      " uploads by links that have not ended; finish them, or "
                                      "delete their data sets"),
                         {{"limit", absl::StrCat(kMostDirectUploads)}});
      }
      given_up = record.direct_upload();
      BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
      DirectUploadRecord& upload = *record.mutable_direct_upload();
      upload.set_incoming(IncomingBlobs(tenant, record.id(), id));
      upload.set_size_bytes(size_bytes);
      upload.set_part_bytes(std::max(part_bytes, (size_bytes + kMostParts - 1) / kMostParts));
    }
    *record.mutable_direct_upload()->mutable_links_time() = ToTimestamp(now);
    return ReplaceRecord(tx, record);
  }));
  CollectAgain(given_up);
  return record.direct_upload();
}

std::string DatasetCatalog::NewBlobOf(const TenantName& name) {
  return absl::StrCat(DatasetBlob(name.tenant, name.id), "-", ids_.NewId());
}

absl::StatusOr<DirectUploadRecord> DatasetCatalog::BeginFinish(const std::string& tenant,
                                                               const TenantName& name,
                                                               const std::string& copied_to) {
  DatasetRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    if (!record.has_direct_upload()) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "UPLOAD_NOT_STARTED",
          absl::StrCat(record.dataset().name(), " has no upload by links; call StartDirectUpload"));
    }
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    BALLAST_RETURN_IF_ERROR(HoldBlobs(tx, copied_to));
    if (!store_.shared()) return absl::OkStatus();
    record.set_written_at(store_.owner());
    return ReplaceRecord(tx, record);
  }));
  return record.direct_upload();
}

absl::Status DatasetCatalog::GiveUpDirectUpload(const TenantName& name,
                                                const std::string& incoming) {
  DirectUploadRecord given_up;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    given_up.Clear();
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<DatasetRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value() || record->direct_upload().incoming() != incoming) {
      return absl::OkStatus();
    }
    given_up = record->direct_upload();
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, *record));
    return ReplaceRecord(tx, *record);
  }));
  CollectAgain(given_up);
  return absl::OkStatus();
}

void DatasetCatalog::CollectAgain(const DirectUploadRecord& ended) {
  if (ended.incoming().empty()) return;
  {
    absl::MutexLock lock(&mutex_);
    still_linked_.emplace(FromTimestamp(ended.links_time()) + kLinksEnd, ended.incoming());
  }
  listener_.GarbageAdded();
}

absl::Status DatasetCatalog::SweepDirectUploads(absl::Time now) {
  std::vector<std::string> due;
  {
    absl::MutexLock lock(&mutex_);
    if (now < next_sweep_) return absl::OkStatus();
    next_sweep_ = now + kBetweenSweeps;
    while (!still_linked_.empty() && still_linked_.begin()->first <= now) {
      due.push_back(still_linked_.begin()->second);
      still_linked_.erase(still_linked_.begin());
    }
  }
  if (!due.empty()) {
    const absl::Status added = store_.Update([&](Transaction& tx) -> absl::Status {
      for (const std::string& incoming : due) BALLAST_RETURN_IF_ERROR(tx.AddGarbage(incoming));
      return absl::OkStatus();
    });
    if (!added.ok()) {
      absl::MutexLock lock(&mutex_);
      for (const std::string& incoming : due) still_linked_.emplace(now, incoming);
      return added;
    }
    listener_.GarbageAdded();
  }
  std::vector<DatasetRecord> forgotten;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    return ForEachInState<DatasetRecord>(
        tx, Dataset::AWAITING_UPLOAD, [&](DatasetRecord record) -> absl::StatusOr<bool> {
          if (record.has_direct_upload() &&
              FromTimestamp(record.direct_upload().links_time()) + kForgotten <= now) {
            forgotten.push_back(std::move(record));
          }
          return true;
        });
  }));
  for (const DatasetRecord& record : forgotten) {
    BALLAST_RETURN_IF_ERROR(
        GiveUpDirectUpload({record.tenant(), record.id()}, record.direct_upload().incoming()));
  }
  return absl::OkStatus();
}

}  // namespace ballast::server
