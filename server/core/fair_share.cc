// SPDX-License-Identifier: Apache-2.0
#include "server/core/fair_share.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/job_state.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;

// States of jobs that a worker has taken, of which none can be had without one.
constexpr FineTuningJob::State kTakenStates[] = {FineTuningJob::RUNNING, FineTuningJob::PAUSING,
                                                 FineTuningJob::CANCELLING,
                                                 FineTuningJob::SUCCEEDED};

// Jobs that ended before a worker took them are looked past; beyond so many the tenant's last work
// is taken for long ago.
constexpr int kMostLookedAt = 200;

// The largest start tag that a worker has taken (the paper's v(t) for several servers).
absl::StatusOr<int64_t> VirtualTime(Transaction& tx) {
  int64_t time = 0;
  for (const auto state : kTakenStates) {
    BALLAST_ASSIGN_OR_RETURN(const auto last, tx.LastQueueKey(Kind::kJob, state));
    time = std::max(time, last.value_or(0));
  }
  return time;
}

// What took no worker's time has no place in the order.
bool NeverRan(const FineTuningJob& job) { return IsFinal(job.state()) && !job.has_start_time(); }

int64_t FinishTag(const JobRecord& record, double weight) {
  const int64_t start =
      record.has_start_tag() ? record.start_tag() : ToRow(record).queue_key;
  const auto tokens =
      static_cast<double>(std::max<int64_t>(1, record.job().estimate().total_tokens()));
  // Far above what all jobs of a service come to, so that tags never overflow.
  constexpr double kMostCost = 1e15;
  return start + static_cast<int64_t>(std::min(std::ceil(tokens / weight), kMostCost));
}

// Number of a tenant's jobs in `state`.
absl::StatusOr<int64_t> CountOf(Transaction& tx, const std::string& tenant,
                                FineTuningJob::State state) {
  Row last;
  last.scope = tenant;
  last.queue_key = INT64_MAX;
  return tx.CountBefore(Kind::kJob, state, last);
}

}  // namespace

absl::StatusOr<int64_t> StartTag(Transaction& tx, const std::string& tenant, double weight) {
  BALLAST_ASSIGN_OR_RETURN(int64_t tag, VirtualTime(tx));
  BALLAST_ASSIGN_OR_RETURN(const auto known, GetRecord<TenantRecord>(tx, "", tenant));
  if (known.has_value()) tag = std::max(tag, known->deleted_finish_tag());
  constexpr int kPage = 20;
  int64_t before = 0;
  for (int looked_at = 0; looked_at < kMostLookedAt; looked_at += kPage) {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kJob, tenant, before, kPage));
    for (const Row& row : rows) {
      BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<JobRecord>(row));
      if (NeverRan(record.job())) continue;
      return std::max(tag, FinishTag(record, weight));
    }
    if (rows.size() < kPage) break;
    before = rows.back().sequence;
  }
  return tag;
}

absl::Status RememberDeleted(Transaction& tx, const JobRecord& record, double weight) {
  if (NeverRan(record.job())) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant,
                           LoadTenant(tx, record.tenant(), Hold::kExclusive));
  const int64_t finish = FinishTag(record, weight);
  if (finish <= tenant.deleted_finish_tag()) return absl::OkStatus();
  tenant.set_deleted_finish_tag(finish);
  return SaveTenant(tx, tenant);
}

absl::Status CheckMayQueue(Transaction& tx, const std::string& tenant, const TenantQuota& quota) {
  int64_t waiting = 0;
  for (const auto state : {FineTuningJob::QUEUED, FineTuningJob::PAUSED}) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t count, CountOf(tx, tenant, state));
    waiting += count;
  }
  if (waiting < quota.max_queued_jobs) return absl::OkStatus();
  return WithRetry(
      MakeError(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS",
                absl::StrCat(waiting, " jobs are queued or paused, and you may have ",
                             quota.max_queued_jobs, "; wait until some of them have run, cancel "
                             "some, or ask the operator for more"),
                {{"limit", absl::StrCat(quota.max_queued_jobs)}}),
      absl::Minutes(1));
}

absl::StatusOr<bool> RunsAsManyAsItMay(Transaction& tx, const std::string& tenant,
                                       const TenantQuota& quota) {
  if (quota.max_running_jobs == 0) return false;
  int64_t running = 0;
  for (const auto state : kLeasedStates) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t count, CountOf(tx, tenant, state));
    running += count;
  }
  return running >= quota.max_running_jobs;
}

}  // namespace ballast::server
