// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_JOB_CATALOG_H_
#define BALLAST_SERVER_CORE_JOB_CATALOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_state.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"
#include "server/core/waiting.h"

namespace ballast::server {

// A tenant's view of jobs: create, look at, pause, cancel, delete. `tenant` is who calls; a job of
// somebody else and none answer alike, NOT_FOUND (JOB_NOT_FOUND). Other failures are those of
// ballast.v1.FineTuningService. Thread safety: thread-safe.
class JobCatalog {
 public:
  // All must outlive the catalog.
  JobCatalog(JobStore& store, IdSource& ids, ChangeListener& listener,
             const ServingVectors& serving, const Quotas& quotas, const v1::Money& price)
      : store_(store),
        ids_(ids),
        listener_(listener),
        serving_(serving),
        quotas_(quotas),
        price_(price) {}

  // Checks and, unless validate_only, stores a job with its first event.
  absl::StatusOr<v1::FineTuningJob> Create(absl::Time now, const std::string& tenant,
                                           const v1::CreateFineTuningJobRequest& request);
  // With the bounds of its start, which no other call gives.
  absl::StatusOr<v1::FineTuningJob> Get(absl::Time now, const std::string& tenant,
                                        const TenantName& name);
  // As it is stored: without its place in the queue, and why it waits.
  absl::StatusOr<v1::FineTuningJob> GetStored(const std::string& tenant, const TenantName& name);
  absl::StatusOr<v1::ListFineTuningJobsResponse> List(absl::Time now, const std::string& tenant,
                                                      const v1::ListFineTuningJobsRequest& request);
  absl::StatusOr<v1::FineTuningJob> Cancel(absl::Time now, const std::string& tenant,
                                           const TenantName& name);
  absl::StatusOr<v1::FineTuningJob> Pause(absl::Time now, const std::string& tenant,
                                          const TenantName& name);
  absl::StatusOr<v1::FineTuningJob> Resume(absl::Time now, const std::string& tenant,
                                           const TenantName& name);
  absl::Status Delete(const std::string& tenant, const TenantName& name, const std::string& etag);
  absl::StatusOr<v1::ListFineTuningJobEventsResponse> ListEvents(
      const std::string& tenant, const v1::ListFineTuningJobEventsRequest& request);

  // The record of a job that has SUCCEEDED; NOT_FOUND (DELTA_NOT_FOUND) for every other.
  absl::StatusOr<JobRecord> GetDelta(const std::string& tenant, const TenantName& name);

 private:
  absl::StatusOr<JobRecord> Compose(Transaction& tx, absl::Time now, const std::string& tenant,
                                    const v1::FineTuningJob& asked);
  // The job as its owner sees it.
  enum class Start { kWithout, kWithBounds };
  static absl::StatusOr<v1::FineTuningJob> ToJob(Transaction& tx, const JobRecord& record,
                                                 WaitingView& view, Start start = Start::kWithout);
  // Moves a job by what its owner asks for.
  absl::StatusOr<v1::FineTuningJob> Ask(absl::Time now, const std::string& tenant,
                                        const TenantName& name, WorkEvent event);

  JobStore& store_;
  IdSource& ids_;
  ChangeListener& listener_;
  const ServingVectors& serving_;
  const Quotas& quotas_;
  const v1::Money& price_;  // of a million tokens
};

// NOT_FOUND (JOB_NOT_FOUND), the same for every reason.
absl::Status JobNotFound(const TenantName& name);
// NOT_FOUND (BASE_MODEL_NOT_FOUND).
absl::Status BaseModelNotFound(const std::string& id);
// The record of a base model, or that.
absl::StatusOr<BaseModelRecord> FindBaseModel(Transaction& tx, const std::string& id,
                                              Hold hold = Hold::kNone);
// NOT_FOUND (DATASET_NOT_FOUND).
absl::Status DatasetNotFound(const TenantName& name);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_JOB_CATALOG_H_
