// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_DATASET_CATALOG_H_
#define BALLAST_SERVER_CORE_DATASET_CATALOG_H_

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/v1/dataset_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"
#include "server/core/resource_name.h"

namespace ballast::server {

// ABORTED (UPLOAD_IN_PROGRESS).
absl::Status UploadInProgress(const std::string& name);

// A tenant's data sets, without their bytes: states and reports. A data set of somebody else and
// none answer alike, NOT_FOUND (DATASET_NOT_FOUND). Other failures are those of
// ballast.v1.DatasetService. Thread safety: thread-safe.
class DatasetCatalog {
 public:
  // All must outlive the catalog.
  DatasetCatalog(JobStore& store, IdSource& ids, ChangeListener& listener, const Quotas& quotas)
      : store_(store), ids_(ids), listener_(listener), quotas_(quotas) {}

  absl::StatusOr<v1::Dataset> Create(absl::Time now, const std::string& tenant,
                                     const v1::CreateDatasetRequest& request);
  absl::StatusOr<v1::Dataset> Get(const std::string& tenant, const TenantName& name);
  absl::StatusOr<v1::ListDatasetsResponse> List(const std::string& tenant,
                                                const v1::ListDatasetsRequest& request);
  absl::Status Delete(const std::string& tenant, const TenantName& name, const std::string& etag);

  // The record, in any state.
  absl::StatusOr<DatasetRecord> GetRecordOf(const std::string& tenant, const TenantName& name);
  // OK when the tenant may have `size_bytes` more in its data sets, that of the id `except` aside,
  // beside what is stored of unfinished uploads, `unfinished(blob)` bytes each, and what is
  // declared of those by links, of ended ones for as long as their links can write.
  // RESOURCE_EXHAUSTED (QUOTA_DATASET_BYTES).
  absl::Status CheckRoom(
      absl::Time now, const std::string& tenant, int64_t size_bytes,
      const std::function<absl::StatusOr<int64_t>(const std::string& blob)>& unfinished,
      const std::string& except = "");
  // Keeps other servers from writing to the data set until EndUpload or FinishUpload; this one's
  // calls the caller keeps apart. An upload by links is given up. ABORTED (UPLOAD_IN_PROGRESS),
  // FAILED_PRECONDITION (UPLOAD_FINISHED).
  absl::StatusOr<DatasetRecord> BeginUpload(const std::string& tenant, const TenantName& name);
  absl::Status EndUpload(const TenantName& name);
  // OK when the upload that has begun here still is: ABORTED (UPLOAD_IN_PROGRESS) when the others
  // took this server for gone.
  absl::Status CheckUpload(const TenantName& name);
  // All bytes are durable under the record's blob, or under `copied_to` (BeginFinish), which is
  // the record's from now on: VALIDATING. FAILED_PRECONDITION (UPLOAD_FINISHED) unless it was
  // AWAITING_UPLOAD, ABORTED (UPLOAD_IN_PROGRESS, BLOBS_LOST) when another server has it meanwhile.
  // RESOURCE_EXHAUSTED (QUOTA_DATASET_BYTES).
  absl::StatusOr<v1::Dataset> FinishUpload(const std::string& tenant, const TenantName& name,
                                           int64_t size_bytes, const std::string& digest,
                                           const std::string& copied_to = "");

  // Begins an upload of so many bytes by links, or goes on with the one that has begun for as many;
  // links are given out at `now` and end after `valid`. Parts have `part_bytes` or, of what would
  // be too many, more. Calls about one data set the caller keeps apart. One that has ended counts
  // until its links have. FAILED_PRECONDITION (UPLOAD_FINISHED), ABORTED (UPLOAD_IN_PROGRESS),
  // RESOURCE_EXHAUSTED (QUOTA_DATASET_BYTES, TOO_MANY_UPLOADS).
  absl::StatusOr<DirectUploadRecord> StartDirectUpload(absl::Time now, absl::Duration valid,
                                                       const std::string& tenant,
                                                       const TenantName& name, int64_t size_bytes,
                                                       int64_t part_bytes);
  // A new name for the bytes of a data set.
  std::string NewBlobOf(const TenantName& name);
  // As BeginUpload for an upload by links, which goes on: its bytes are about to be copied to
  // `copied_to`, which is this server's until FinishUpload, and garbage until then. Also
  // FAILED_PRECONDITION (UPLOAD_NOT_STARTED).
  absl::StatusOr<DirectUploadRecord> BeginFinish(const std::string& tenant, const TenantName& name,
                                                 const std::string& copied_to);
  // Ends the upload by links to `incoming`, if it has not ended: what links lead to is garbage.
  absl::Status GiveUpDirectUpload(const TenantName& name, const std::string& incoming);
  // Collects once more what was written by links after their upload had ended, once these have.
  // Data sets of which nobody has asked for links for a day, for GiveUpForgotten. Does something
  // now and then only.
  absl::StatusOr<std::vector<TenantName>> SweepDirectUploads(absl::Time now);
  // Ends the upload by links unless somebody has asked for links meanwhile, or another server is at
  // it; this one's calls the caller keeps apart.
  absl::Status GiveUpForgotten(absl::Time now, const TenantName& name);

  struct ToValidate {
    DatasetRecord dataset;
    BaseModelRecord base;
  };
  // The data set that has waited longest for its row checks, those named in `except` aside, and
  // those that another server checks. It is this server's to check.
  absl::StatusOr<std::optional<ToValidate>> NextToValidate(
      const std::set<std::string>& except = {});
  // Others may check it.
  absl::Status GiveUpValidation(const ToValidate& taken);
  // The result of the row checks: READY or INVALID. OK and nothing when the data set is gone.
  absl::Status StoreReport(const ToValidate& checked, const v1::ValidationReport& report);

 private:
  // The first of those, not taken yet.
  absl::StatusOr<std::optional<ToValidate>> FindToValidate(const std::set<std::string>& except);
  // What was written by links that have ended is garbage.
  absl::Status CollectLinked(absl::Time now);

  JobStore& store_;
  IdSource& ids_;
  ChangeListener& listener_;
  const Quotas& quotas_;
  absl::Mutex mutex_;
  absl::Time next_sweep_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_DATASET_CATALOG_H_
