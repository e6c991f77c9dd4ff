// SPDX-License-Identifier: Apache-2.0
#include "server/core/fair_share.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/job_state.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;

// The row of the virtual time, beside the tenants'; its queue key is the time.
constexpr char kQueueScope[] = "queue";
constexpr char kVirtualTime[] = "virtual-time";

// States whose rows had their creation time as queue key before there was a virtual time.
constexpr FineTuningJob::State kStatesOfBefore[] = {
    FineTuningJob::QUEUED,     FineTuningJob::PAUSED,    FineTuningJob::RUNNING,
    FineTuningJob::CANCELLING, FineTuningJob::SUCCEEDED,
};

absl::StatusOr<std::optional<int64_t>> FindVirtualTime(Transaction& tx, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(const auto row, tx.Get(Kind::kTenant, kQueueScope, kVirtualTime, hold));
  return row.has_value() ? std::optional<int64_t>(row->queue_key) : std::nullopt;
}

absl::Status StoreVirtualTime(Transaction& tx, int64_t time, bool there) {
  Row row;
  row.scope = kQueueScope;
  row.id = kVirtualTime;
  row.queue_key = time;
  return there ? tx.Replace(Kind::kTenant, row) : tx.Add(Kind::kTenant, row);
}

// Begins, once, behind all jobs of before, so that those go first.
absl::StatusOr<int64_t> VirtualTime(Transaction& tx) {
  BALLAST_ASSIGN_OR_RETURN(const auto known, FindVirtualTime(tx, Hold::kNone));
  if (known.has_value()) return *known;
  int64_t time = 0;
  for (const auto state : kStatesOfBefore) {
    BALLAST_ASSIGN_OR_RETURN(const auto last, tx.LastQueueKey(Kind::kJob, state));
    time = std::max(time, last.value_or(0));
  }
  BALLAST_RETURN_IF_ERROR(StoreVirtualTime(tx, time, /*there=*/false));
  return time;
}

// Of the tokens that are left to train.
int64_t CostOfWaiting(const JobRecord& record, double weight) {
  const int64_t left =
      record.job().estimate().total_tokens() - record.job().progress().trained_tokens();
  // Far above what all jobs of a service come to, so that tags never overflow.
  constexpr double kMostCost = 1e15;
  return static_cast<int64_t>(
      std::clamp(std::ceil(static_cast<double>(left) / weight), 1.0, kMostCost));
}

}  // namespace

RowKey VirtualTimeKey() { return {Kind::kTenant, kQueueScope, kVirtualTime, Hold::kNone}; }

absl::Status Line(Transaction& tx, JobRecord& record, double weight) {
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, LoadTenant(tx, record.tenant(), Hold::kExclusive));
  BALLAST_ASSIGN_OR_RETURN(const int64_t time, VirtualTime(tx));
  record.set_start_tag(std::max(time, tenant.finish_tag()));
  record.set_finish_tag(record.start_tag() + CostOfWaiting(record, weight));
  tenant.set_finish_tag(record.finish_tag());
  return SaveTenant(tx, tenant);
}

absl::Status LeaveLine(Transaction& tx, const JobRecord& record) {
  if (!record.has_start_tag()) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, LoadTenant(tx, record.tenant(), Hold::kExclusive));
  tenant.set_finish_tag(tenant.finish_tag() - (record.finish_tag() - record.start_tag()));
  return SaveTenant(tx, tenant);
}

absl::Status AdvanceTo(Transaction& tx, const JobRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const auto time, FindVirtualTime(tx, Hold::kExclusive));
  if (!record.has_start_tag() || (time.has_value() && *time >= record.start_tag())) {
    return absl::OkStatus();
  }
  return StoreVirtualTime(tx, record.start_tag(), time.has_value());
}

absl::Status LineUpAnew(Transaction& tx, const std::string& tenant, double weight) {
  std::vector<std::pair<int64_t, std::string>> waiting;  // place and id
  constexpr int kPage = 100;
  for (int64_t before = 0;;) {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kJob, tenant, before, kPage));
    for (const Row& row : rows) {
      if (row.state == FineTuningJob::QUEUED) waiting.emplace_back(row.queue_key, row.id);
    }
    if (rows.size() < kPage) break;
    before = rows.back().sequence;
  }
  std::sort(waiting.begin(), waiting.end());
  BALLAST_ASSIGN_OR_RETURN(TenantRecord known, LoadTenant(tx, tenant, Hold::kExclusive));
  known.set_finish_tag(0);
  BALLAST_RETURN_IF_ERROR(SaveTenant(tx, known));
  for (const auto& [place, id] : waiting) {
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, tenant, id, Hold::kExclusive));
    if (!record.has_value() || record->job().state() != FineTuningJob::QUEUED) continue;
    BALLAST_RETURN_IF_ERROR(Line(tx, *record, weight));
    BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *record));
  }
  return absl::OkStatus();
}

absl::Status CheckMayQueue(Transaction& tx, const std::string& tenant, const TenantQuota& quota) {
  BALLAST_ASSIGN_OR_RETURN(
      const int64_t waiting,
      tx.CountOfScope(Kind::kJob, tenant, {FineTuningJob::QUEUED, FineTuningJob::PAUSED}));
  if (waiting < quota.max_queued_jobs) return absl::OkStatus();
  return WithRetry(MakeError(absl::StatusCode::kResourceExhausted, "QUOTA_QUEUED_JOBS",
                             absl::StrCat(waiting, " jobs are queued or paused, and you may have ",
                                          quota.max_queued_jobs,
                                          "; wait until some of them have run, cancel "
                                          "some, or ask the operator for more"),
                             {{"limit", absl::StrCat(quota.max_queued_jobs)}}),
                   absl::Minutes(1));
}

absl::StatusOr<bool> MayRun(Transaction& tx, const std::string& tenant, const TenantQuota& quota,
                            int64_t more) {
  if (quota.max_running_jobs == 0) return true;
  BALLAST_ASSIGN_OR_RETURN(
      const int64_t running,
      tx.CountOfScope(Kind::kJob, tenant, {std::begin(kLeasedStates), std::end(kLeasedStates)}));
  return running + more <= quota.max_running_jobs;
}

}  // namespace ballast::server
