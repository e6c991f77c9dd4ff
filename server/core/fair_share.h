// SPDX-License-Identifier: Apache-2.0
// Weighted fair share of the workers among tenants, by start-time fair queueing (Goyal, Vin and
// Cheng, "Start-time Fair Queueing", SIGCOMM 1996). Each job gets a start tag when it begins to
// wait, in tokens of work divided by its tenant's weight, and workers take the job with the
// smallest tag. A tenant's next job begins where its last one ends, or at the virtual time where
// that is later: so ten thousand jobs of one tenant lie behind each other and do not delay the
// first one of another, and a tenant that was away, paused or frozen has saved nothing up. Virtual
// time is the largest tag that was ever taken. It is stored, and never goes back.
//
// Within a tenant a job goes before those of lower priority, which move back by as much as it
// costs. Where priorities are used, what leaves moves up what is behind it. So the last of a
// tenant's jobs ends where it would without priorities, which take nothing from others.
//
// Functions over a transaction; they hold the tenant's record, which comes after the job's.
#ifndef BALLAST_SERVER_CORE_FAIR_SHARE_H_
#define BALLAST_SERVER_CORE_FAIR_SHARE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// The row of the virtual time, which Line reads.
RowKey VirtualTimeKey();

// Gives a job that begins to wait its place, behind its tenant's others of its priority. The caller
// stores it.
absl::Status Line(Transaction& tx, JobRecord& record, double weight, absl::Time now);

// The same for a job that is being created, which CheckMayQueue has let in.
absl::Status LineNew(Transaction& tx, JobRecord& record, const TenantQuota& quota, absl::Time now);

// A job that waited leaves the queue untaken: its tenant's next one, or those behind it where the
// tenant uses priorities, begin so much earlier.
absl::Status LeaveLine(Transaction& tx, const JobRecord& record);

// A job that waited was taken: virtual time goes on to its tag. `for_worker`: a worker is all that
// it has waited for.
absl::Status AdvanceTo(Transaction& tx, const JobRecord& record, bool for_worker, absl::Time now);

// Virtual time, 0 before the first job, and how fast it goes.
struct QueueTime {
  int64_t virtual_time = 0;
  QueueClockRecord clock;
};
absl::StatusOr<QueueTime> FindQueueTime(Transaction& tx);

// All of a tenant's QUEUED jobs line up anew, in their order: they were kept from running.
absl::Status LineUpAnew(Transaction& tx, const std::string& tenant, double weight, absl::Time now);

// OK when `tenant` may have one more job. RESOURCE_EXHAUSTED (QUOTA_QUEUED_JOBS). Counts jobs only
// where the tenant's record leaves it open.
absl::Status CheckMayQueue(Transaction& tx, const std::string& tenant, const TenantQuota& quota);

// Whether workers may hold `more` jobs of `tenant` than they do.
absl::StatusOr<bool> MayRun(Transaction& tx, const std::string& tenant, const TenantQuota& quota,
                            int64_t more);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_FAIR_SHARE_H_
