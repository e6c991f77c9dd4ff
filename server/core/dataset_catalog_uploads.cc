// SPDX-License-Identifier: Apache-2.0
// What of DatasetCatalog is about uploads: through the server, and past it by links.
#include <algorithm>
#include <map>
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
#include "server/core/live_servers.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"

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

// Uploads by links that a tenant may have open at once, or given up with links that have not ended.
constexpr int kMostDirectUploads = 20;
// With those that have ended well, which the tenant's record has until their links have ended.
constexpr int kMostLinked = 200;
// Parts of one, in which larger files have larger parts.
constexpr int64_t kMostParts = 1000;
// For how long nobody asks for links to an upload that is given up.
constexpr absl::Duration kForgotten = absl::Hours(24);
// From when a link should have ended, for signing it and for the store's clock.
constexpr absl::Duration kSpare = absl::Minutes(1);
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

// What links can still write to whose upload has ended.
struct Linked {
  int64_t bytes = 0;
  int uploads = 0;
};

struct StillLinked {
  std::map<std::string, Linked> by_dataset;  // by id
  int uploads = 0;
  absl::Time until = absl::InfinitePast();  // when all of these links have ended
};

bool HasEnded(const LinkedUpload& upload, absl::Time now) {
  return FromTimestamp(upload.links_end_time()) <= now;
}

StillLinked LinkedAt(absl::Time now, const TenantRecord& tenant) {
  StillLinked found;
  for (const LinkedUpload& upload : tenant.still_linked()) {
    if (HasEnded(upload, now)) continue;
    Linked& linked = found.by_dataset[upload.dataset()];
    linked.bytes += upload.size_bytes();
    ++linked.uploads;
    ++found.uploads;
    found.until = std::max(found.until, FromTimestamp(upload.links_end_time()));
  }
  return found;
}

// For the message of a limit that ended uploads have a part in; empty where there are none.
std::string UntilLinksEnd(const StillLinked& linked) {
  if (linked.uploads == 0) return "";
  return absl::StrCat(" (uploads that have ended count until their links have, at ",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", linked.until, absl::UTCTimeZone()),
                      ")");
}

// Bytes of a tenant's data sets, those that are declared for uploads by links among them, uploads
// that are open or were given up with links that have not ended, and the blobs of those whose
// upload has not ended.
struct StoredDatasets {
  int64_t bytes = 0;
  int open_uploads = 0;
  int direct_uploads = 0;  // these, and given up ones
  std::vector<std::string> unfinished;
};

// Those of all data sets but `except`, and of all that is `linked`.
absl::StatusOr<StoredDatasets> DatasetsOf(Transaction& tx, const std::string& tenant,
                                          const std::string& except, StillLinked linked = {}) {
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
        found.open_uploads += record.has_direct_upload() ? 1 : 0;
      } else {
        // What came by links is there a second time only if somebody writes it once more: for who
        // does not, an upload counts once.
        const auto same = linked.by_dataset.extract(row.id);
        const int64_t again = same.empty() ? 0 : same.mapped().bytes;
        found.bytes += std::max(record.dataset().size_bytes(), again);
      }
    }
    if (rows.size() < kPage) break;
    before = rows.back().sequence;
  }
  found.direct_uploads = found.open_uploads;
  for (const auto& [dataset, given_up] : linked.by_dataset) {
    found.bytes += given_up.bytes;
    found.direct_uploads += given_up.uploads;
  }
  return found;
}

// OK when `size_bytes` more than the `stored` ones are within the quota, which may be none.
absl::Status CheckQuotaOfBytes(int64_t stored, int64_t size_bytes, const TenantQuota& quota,
                               const StillLinked& linked = {}) {
  if (quota.max_dataset_bytes == 0 || stored + size_bytes <= quota.max_dataset_bytes) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, "QUOTA_DATASET_BYTES",
      absl::StrCat("your data sets have ", stored, " bytes, and with ", size_bytes,
                   " more they would go beyond your quota of ", quota.max_dataset_bytes,
                   "; delete some, or ask the operator for more", UntilLinksEnd(linked)),
      {{"limit", absl::StrCat(quota.max_dataset_bytes)}});
}

bool IsForgotten(const DatasetRecord& record, absl::Time now) {
  return record.has_direct_upload() &&
         FromTimestamp(record.direct_upload().links_time()) + kForgotten <= now;
}

absl::Status CheckCountOfUploads(const StoredDatasets& stored, const StillLinked& linked) {
  if (stored.direct_uploads < kMostDirectUploads &&
      stored.open_uploads + linked.uploads < kMostLinked) {
    return absl::OkStatus();
  }
  const bool open = stored.direct_uploads >= kMostDirectUploads;
  return MakeError(
      absl::StatusCode::kResourceExhausted, "TOO_MANY_UPLOADS",
      absl::StrCat("you have ", open ? stored.direct_uploads : stored.open_uploads + linked.uploads,
                   " uploads by links that have not ended or whose links have not; finish them, or "
                   "wait, or upload by WriteDataset",
                   UntilLinksEnd(linked)),
      {{"limit", absl::StrCat(open ? kMostDirectUploads : kMostLinked)}});
}

}  // namespace

absl::Status DatasetCatalog::CheckRoom(
    absl::Time now, const std::string& tenant, int64_t size_bytes,
    const std::function<absl::StatusOr<int64_t>(const std::string& blob)>& unfinished,
    const std::string& except) {
  const TenantQuota& quota = quotas_.Of(tenant);
  if (quota.max_dataset_bytes == 0) return absl::OkStatus();
  StoredDatasets stored;
  StillLinked linked;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const TenantRecord known, LoadTenant(tx, tenant, Hold::kNone));
    linked = LinkedAt(now, known);
    // Whoever goes on through the server need not wait for the links that did not work.
    linked.by_dataset.erase(except);
    BALLAST_ASSIGN_OR_RETURN(stored, DatasetsOf(tx, tenant, except, linked));
    return absl::OkStatus();
  }));
  // Outside the transaction: it may ask a store behind a network.
  for (const std::string& blob : stored.unfinished) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t bytes, unfinished(blob));
    stored.bytes += bytes;
  }
  return CheckQuotaOfBytes(stored.bytes, size_bytes, quota, linked);
}

absl::StatusOr<DatasetRecord> DatasetCatalog::BeginUpload(const std::string& tenant,
                                                          const TenantName& name) {
  BALLAST_ASSIGN_OR_RETURN(DatasetRecord record, GetRecordOf(tenant, name));
  if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
  if (!store_.shared() && !record.has_direct_upload()) return record;
  bool struck = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    if (store_.shared()) record.set_written_at(store_.owner());
    struck = record.has_direct_upload();
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
    return ReplaceRecord(tx, record);
  }));
  if (struck) listener_.GarbageAdded();
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
  bool struck = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsHere(tx, store_, record));
    record.clear_written_at();
    if (const TenantQuota& quota = quotas_.Of(tenant); quota.max_dataset_bytes != 0) {
      // Of two that end at once one counts the other. What is linked was counted at the start.
      BALLAST_RETURN_IF_ERROR(HoldTenant(tx, tenant).status());
      BALLAST_ASSIGN_OR_RETURN(const StoredDatasets stored, DatasetsOf(tx, tenant, name.id));
      BALLAST_RETURN_IF_ERROR(CheckQuotaOfBytes(stored.bytes, size_bytes, quota));
    }
    struck = record.has_direct_upload();
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
  if (struck) listener_.GarbageAdded();
  listener_.DatasetUploaded();
  return record.dataset();
}

absl::StatusOr<DirectUploadRecord> DatasetCatalog::StartDirectUpload(
    absl::Time now, absl::Duration valid, const std::string& tenant, const TenantName& name,
    int64_t size_bytes, int64_t part_bytes) {
  const std::string id = ids_.NewId();
  DatasetRecord record;
  bool struck = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (record.dataset().state() != Dataset::AWAITING_UPLOAD) return UploadFinished(record);
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    struck = record.has_direct_upload() && record.direct_upload().size_bytes() != size_bytes;
    if (record.direct_upload().size_bytes() != size_bytes) {
      // First, so that what its links can still write counts, too.
      BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
      BALLAST_ASSIGN_OR_RETURN(const TenantRecord held, HoldTenant(tx, tenant));
      const StillLinked linked = LinkedAt(now, held);
      BALLAST_ASSIGN_OR_RETURN(const StoredDatasets stored,
                               DatasetsOf(tx, tenant, name.id, linked));
      BALLAST_RETURN_IF_ERROR(
          CheckQuotaOfBytes(stored.bytes, size_bytes, quotas_.Of(tenant), linked));
      BALLAST_RETURN_IF_ERROR(CheckCountOfUploads(stored, linked));
      DirectUploadRecord& upload = *record.mutable_direct_upload();
      upload.set_incoming(IncomingBlobs(tenant, record.id(), id));
      upload.set_size_bytes(size_bytes);
      upload.set_part_bytes(std::max(part_bytes, (size_bytes + kMostParts - 1) / kMostParts));
    }
    DirectUploadRecord& upload = *record.mutable_direct_upload();
    *upload.mutable_links_time() = ToTimestamp(now);
    // Earlier ones may have been valid for longer.
    *upload.mutable_links_end_time() =
        ToTimestamp(std::max(now + valid + kSpare, FromTimestamp(upload.links_end_time())));
    return ReplaceRecord(tx, record);
  }));
  if (struck) listener_.GarbageAdded();
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
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<DatasetRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value() || record->direct_upload().incoming() != incoming) {
      return absl::OkStatus();
    }
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, *record));
    return ReplaceRecord(tx, *record);
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

absl::Status DatasetCatalog::GiveUpForgotten(absl::Time now, const TenantName& name) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<DatasetRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value() || !IsForgotten(*record, now)) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, record->written_at()));
    if (elsewhere) return absl::OkStatus();
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, *record));
    return ReplaceRecord(tx, *record);
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

absl::Status DatasetCatalog::CollectLinked(absl::Time now) {
  constexpr int kPage = 100;
  std::vector<std::string> tenants;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    for (int64_t before = 0;;) {
      BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kTenant, "", before, kPage));
      for (const Row& row : rows) {
        BALLAST_ASSIGN_OR_RETURN(const auto tenant, FromRow<TenantRecord>(row));
        const auto& linked = tenant.still_linked();
        const auto has_ended = [&](const LinkedUpload& upload) { return HasEnded(upload, now); };
        if (std::any_of(linked.begin(), linked.end(), has_ended)) tenants.push_back(tenant.id());
      }
      if (rows.size() < kPage) return absl::OkStatus();
      before = rows.back().sequence;
    }
  }));
  for (const std::string& id : tenants) {
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, HoldTenant(tx, id));
      std::vector<LinkedUpload> left;
      for (const LinkedUpload& upload : tenant.still_linked()) {
        if (!HasEnded(upload, now)) {
          left.push_back(upload);
          continue;
        }
        BALLAST_RETURN_IF_ERROR(tx.AddGarbage(upload.incoming()));
      }
      tenant.mutable_still_linked()->Assign(left.begin(), left.end());
      return ReplaceRecord(tx, tenant);
    }));
  }
  if (!tenants.empty()) listener_.GarbageAdded();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TenantName>> DatasetCatalog::SweepDirectUploads(absl::Time now) {
  std::vector<TenantName> forgotten;
  {
    absl::MutexLock lock(&mutex_);
    if (now < next_sweep_) return forgotten;
    next_sweep_ = now + kBetweenSweeps;
  }
  BALLAST_RETURN_IF_ERROR(CollectLinked(now));
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    return ForEachInState<DatasetRecord>(tx, Dataset::AWAITING_UPLOAD,
                                         [&](const DatasetRecord& record) -> absl::StatusOr<bool> {
                                           if (IsForgotten(record, now))
                                             forgotten.push_back({record.tenant(), record.id()});
                                           return true;
                                         });
  }));
  return forgotten;
}

}  // namespace ballast::server
