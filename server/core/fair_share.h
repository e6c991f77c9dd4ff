// SPDX-License-Identifier: Apache-2.0
// Weighted fair share of the workers among tenants, by start-time fair queueing (Goyal, Vin and
// Cheng, "Start-time Fair Queueing", SIGCOMM 1996). Each job gets a start tag when it is created, in
// tokens of work divided by its tenant's weight, and workers take the job with the smallest tag. A
// tenant's next job begins where its last one ends, or at the virtual time where that is later: so
// ten thousand jobs of one tenant lie behind each other and do not delay the first one of another,
// and a tenant that was away has saved nothing up.
//
// Functions over a transaction.
#ifndef BALLAST_SERVER_CORE_FAIR_SHARE_H_
#define BALLAST_SERVER_CORE_FAIR_SHARE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/quotas.h"

namespace ballast::server {

// Start tag of a job that `tenant` creates now. Two that are created at the same moment may get the
// same tag.
absl::StatusOr<int64_t> StartTag(Transaction& tx, const std::string& tenant, double weight);

// Keeps the place in the queue of a job that is about to be deleted, or who deletes what has run
// would always be first.
absl::Status RememberDeleted(Transaction& tx, const JobRecord& record, double weight);

// OK when `tenant` may have one more job. RESOURCE_EXHAUSTED (QUOTA_QUEUED_JOBS).
absl::Status CheckMayQueue(Transaction& tx, const std::string& tenant, const TenantQuota& quota);

// Whether workers hold as many jobs of `tenant` as it may have running.
absl::StatusOr<bool> RunsAsManyAsItMay(Transaction& tx, const std::string& tenant,
                                       const TenantQuota& quota);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_FAIR_SHARE_H_
