// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_WITHHELD_JOBS_H_
#define BALLAST_SERVER_CORE_WITHHELD_JOBS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/gate_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/resource_name.h"

namespace ballast::server {

// Reason of a job that FAILED since nobody decided on its delta in time.
inline constexpr char kGateExpired[] = "GATE_EXPIRED";

// What the gate withheld, and the operators' decisions on it, of all tenants. Failures are those of
// ballast.admin.v1.GateService. It has no clock and no thread. Thread safety: thread-safe.
class WithheldJobs {
 public:
  // All must outlive the object. A job that nobody has decided on `expiry` after it was withheld
  // FAILS.
  WithheldJobs(JobStore& store, ChangeListener& listener, absl::Duration expiry)
      : store_(store), listener_(listener), expiry_(expiry) {}

  // Expires what is due. Call it now and then; it looks only when something may be due.
  absl::Status Enter(absl::Time now);

  absl::StatusOr<admin::v1::ListWithheldJobsResponse> List(
      const admin::v1::ListWithheldJobsRequest& request);
  absl::StatusOr<admin::v1::JobGate> Get(const TenantName& name);
  // `who`: label of the operator's key.
  absl::StatusOr<admin::v1::JobGate> Release(absl::Time now, const std::string& who,
                                             const TenantName& name, const std::string& reason);
  absl::StatusOr<admin::v1::JobGate> Refuse(absl::Time now, const std::string& who,
                                            const TenantName& name, const std::string& reason);

 private:
  absl::StatusOr<admin::v1::JobGate> Decide(absl::Time now, const TenantName& name,
                                            const admin::v1::GateDecision& decision);
  admin::v1::JobGate ToGate(const JobRecord& record) const;
  absl::Time ExpiryOf(const JobRecord& record) const;

  JobStore& store_;
  ChangeListener& listener_;
  const absl::Duration expiry_;
  absl::Mutex mutex_;
  absl::Time next_look_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_WITHHELD_JOBS_H_
