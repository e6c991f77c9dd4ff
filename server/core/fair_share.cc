// SPDX-License-Identifier: Apache-2.0
#include "server/core/fair_share.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/job_state.h"
#include "server/core/queue_clock.h"
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

absl::StatusOr<std::optional<QueueTime>> FindTime(Transaction& tx, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(const auto row, tx.Get(Kind::kTenant, kQueueScope, kVirtualTime, hold));
  if (!row.has_value()) return std::optional<QueueTime>();
  BALLAST_ASSIGN_OR_RETURN(QueueClockRecord clock, FromRow<QueueClockRecord>(*row));
  return std::make_optional(QueueTime{row->queue_key, std::move(clock)});
}

absl::Status StoreTime(Transaction& tx, const QueueTime& time, bool there) {
  Row row;
  row.scope = kQueueScope;
  row.id = kVirtualTime;
  row.queue_key = time.virtual_time;
  row.bytes = time.clock.SerializeAsString();
  return there ? tx.Replace(Kind::kTenant, row) : tx.Add(Kind::kTenant, row);
}

// Begins, once, behind all jobs of before, so that those go first.
absl::StatusOr<int64_t> VirtualTime(Transaction& tx) {
  BALLAST_ASSIGN_OR_RETURN(const auto known, FindTime(tx, Hold::kNone));
  if (known.has_value()) return known->virtual_time;
  int64_t time = 0;
  for (const auto state : kStatesOfBefore) {
    BALLAST_ASSIGN_OR_RETURN(const auto last, tx.LastQueueKey(Kind::kJob, state));
    time = std::max(time, last.value_or(0));
  }
  BALLAST_RETURN_IF_ERROR(StoreTime(tx, {time, {}}, /*there=*/false));
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

// Where the tenant's jobs of each priority end.
class Ends {
 public:
  explicit Ends(TenantRecord& tenant)
      : tenant_(tenant), ends_(tenant.finish_tags().begin(), tenant.finish_tags().end()) {
    ends_[0] = tenant.finish_tag();
  }

  // Of those that go before a new one of `priority`.
  int64_t Before(int32_t priority) const {
    int64_t end = INT64_MIN;
    for (auto it = ends_.lower_bound(priority); it != ends_.end(); ++it) {
      end = std::max(end, it->second);
    }
    return end;
  }
  int64_t Last() const { return Before(INT32_MIN); }
  void Set(int32_t priority, int64_t end) { ends_[priority] = end; }
  // All that lie at `from` or later move by `tokens`.
  void Shift(int64_t from, int64_t tokens) {
    for (auto& [_, end] : ends_) {
      if (end >= from) end += tokens;
    }
  }
  // Puts them into the record.
  void Save() {
    tenant_.set_finish_tag(ends_[0]);
    for (const auto& [priority, end] : ends_) {
      if (priority != 0) (*tenant_.mutable_finish_tags())[priority] = end;
    }
  }

 private:
  TenantRecord& tenant_;
  std::map<int32_t, int64_t> ends_;
};

// `behind_all`: behind the tenant's others of lower priority, too.
absl::Status Place(Transaction& tx, JobRecord& record, double weight, absl::Time now,
                   TenantRecord& tenant, bool behind_all = false) {
  BALLAST_ASSIGN_OR_RETURN(const int64_t time, VirtualTime(tx));
  const int32_t priority = record.job().priority();
  const int64_t cost = CostOfWaiting(record, weight);
  Ends ends(tenant);
  const int64_t from = ends.Before(priority), last = ends.Last();
  int64_t start = std::max(time, last);
  if (!behind_all && last > from) {
    // Jobs of lower priority lie behind: it takes the place of the first that still waits, and the
    // tenant's last one ends where it would without priorities.
    const int64_t by = start + cost - last;
    BALLAST_ASSIGN_OR_RETURN(const auto first, tx.ShiftQueue(Kind::kJob, record.tenant(),
                                                             FineTuningJob::QUEUED, from, by));
    if (first.has_value()) {
      start = *first;
      ends.Shift(start + 1, by);
    }
  }
  record.set_start_tag(start);
  record.set_finish_tag(start + cost);
  *record.mutable_waits_since() = ToTimestamp(now);
  ends.Set(priority, record.finish_tag());
  ends.Save();
  return SaveTenant(tx, tenant);
}

absl::StatusOr<int64_t> CountWaiting(Transaction& tx, const std::string& tenant) {
  return tx.CountOfScope(Kind::kJob, tenant, {FineTuningJob::QUEUED, FineTuningJob::PAUSED});
}

absl::StatusOr<int64_t> CountLeased(Transaction& tx, const std::string& tenant) {
  return tx.CountOfScope(Kind::kJob, tenant, {std::begin(kLeasedStates), std::end(kLeasedStates)});
}

// Whether the tenant surely has fewer jobs that wait than it may have.
bool HasRoom(const TenantRecord& tenant, const TenantQuota& quota) {
  return tenant.has_waiting_at_most() && tenant.waiting_at_most() < quota.max_queued_jobs;
}

}  // namespace

RowKey VirtualTimeKey() { return {Kind::kTenant, kQueueScope, kVirtualTime, Hold::kNone}; }

absl::Status Line(Transaction& tx, JobRecord& record, double weight, absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, LoadTenant(tx, record.tenant(), Hold::kExclusive));
  return Place(tx, record, weight, now, tenant);
}

absl::Status LineNew(Transaction& tx, JobRecord& record, const TenantQuota& quota, absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, LoadTenant(tx, record.tenant(), Hold::kExclusive));
  // What a worker holds may come back, so that it counts, too: then only creations can make it
  // more.
  if (!HasRoom(tenant, quota)) {
    // In this order: what comes back between the two is counted twice rather than not at all.
    BALLAST_ASSIGN_OR_RETURN(const int64_t leased, CountLeased(tx, record.tenant()));
    BALLAST_ASSIGN_OR_RETURN(const int64_t waiting, CountWaiting(tx, record.tenant()));
    tenant.set_waiting_at_most(waiting + leased);
  }
  tenant.set_waiting_at_most(tenant.waiting_at_most() + 1);
  return Place(tx, record, quota.weight, now, tenant);
}

absl::Status LeaveLine(Transaction& tx, const JobRecord& record) {
  if (!record.has_start_tag()) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, LoadTenant(tx, record.tenant(), Hold::kExclusive));
  const int64_t cost = record.finish_tag() - record.start_tag();
  if (tenant.finish_tags().empty()) {
    // Its others keep their places, which is not worth a row for each: the next to come is earlier.
    tenant.set_finish_tag(tenant.finish_tag() - cost);
    return SaveTenant(tx, tenant);
  }
  Ends ends(tenant);
  BALLAST_RETURN_IF_ERROR(
      tx.ShiftQueue(Kind::kJob, record.tenant(), FineTuningJob::QUEUED, record.finish_tag(), -cost)
          .status());
  ends.Shift(record.finish_tag(), -cost);
  ends.Save();
  return SaveTenant(tx, tenant);
}

absl::Status AdvanceTo(Transaction& tx, const JobRecord& record, bool for_worker, absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(auto time, FindTime(tx, Hold::kExclusive));
  if (!record.has_start_tag() || (time.has_value() && time->virtual_time >= record.start_tag())) {
    return absl::OkStatus();
  }
  QueueTime next = time.value_or(QueueTime{record.start_tag(), {}});
  NoteTaken(next.clock, record.start_tag() - next.virtual_time,
            for_worker && record.has_waits_since() ? now - FromTimestamp(record.waits_since())
                                                   : absl::ZeroDuration(),
            now);
  next.virtual_time = record.start_tag();
  return StoreTime(tx, next, time.has_value());
}

absl::StatusOr<QueueTime> FindQueueTime(Transaction& tx) {
  BALLAST_ASSIGN_OR_RETURN(const auto time, FindTime(tx, Hold::kNone));
  return time.value_or(QueueTime());
}

absl::Status LineUpAnew(Transaction& tx, const std::string& tenant, double weight, absl::Time now) {
  std::vector<std::tuple<int32_t, int64_t, std::string>> waiting;  // -priority, place and id
  constexpr int kPage = 100;
  for (int64_t before = 0;;) {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kJob, tenant, before, kPage));
    for (const Row& row : rows) {
      if (row.state != FineTuningJob::QUEUED) continue;
      BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<JobRecord>(row));
      waiting.emplace_back(-record.job().priority(), row.queue_key, row.id);
    }
    if (rows.size() < kPage) break;
    before = rows.back().sequence;
  }
  std::sort(waiting.begin(), waiting.end());
  BALLAST_ASSIGN_OR_RETURN(TenantRecord known, LoadTenant(tx, tenant, Hold::kExclusive));
  known.set_finish_tag(0);
  known.clear_finish_tags();
  BALLAST_RETURN_IF_ERROR(SaveTenant(tx, known));
  for (const auto& [priority, place, id] : waiting) {
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, tenant, id, Hold::kExclusive));
    if (!record.has_value() || record->job().state() != FineTuningJob::QUEUED) continue;
    BALLAST_ASSIGN_OR_RETURN(known, LoadTenant(tx, tenant, Hold::kExclusive));
    BALLAST_RETURN_IF_ERROR(Place(tx, *record, weight, now, known, /*behind_all=*/true));
    BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *record));
  }
  return absl::OkStatus();
}

absl::Status CheckMayQueue(Transaction& tx, const std::string& tenant, const TenantQuota& quota) {
  BALLAST_ASSIGN_OR_RETURN(const TenantRecord known, LoadTenant(tx, tenant, Hold::kNone));
  if (HasRoom(known, quota)) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(const int64_t waiting, CountWaiting(tx, tenant));
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
  BALLAST_ASSIGN_OR_RETURN(const int64_t running, CountLeased(tx, tenant));
  return running + more <= quota.max_running_jobs;
}

}  // namespace ballast::server
