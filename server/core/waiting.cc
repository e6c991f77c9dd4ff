// SPDX-License-Identifier: Apache-2.0
#include "server/core/waiting.h"

#include "absl/strings/str_cat.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "server/core/fair_share.h"
#include "server/core/hand_out.h"
#include "server/core/queue_clock.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;
using v1::Waiting;

// Whether no job at all lies between virtual time and this one.
absl::StatusOr<bool> IsNext(Transaction& tx, const JobRecord& record, int64_t virtual_time) {
  BALLAST_ASSIGN_OR_RETURN(const auto first,
                           tx.ListByState(Kind::kJob, FineTuningJob::QUEUED,
                                          StateCursor{virtual_time, "", ""}, /*limit=*/1));
  return first.empty() || first.front().queue_key >= record.start_tag();
}

}  // namespace

absl::StatusOr<Waiting> WaitingView::Describe(const JobRecord& record) {
  Waiting waiting;
  *waiting.mutable_since() =
      record.has_waits_since() ? record.waits_since() : record.job().create_time();
  const auto because = [&](Waiting::Reason reason, const std::string& message) {
    waiting.set_reason(reason);
    waiting.set_message(message);
    return waiting;
  };
  if (!frozen_.has_value()) {
    BALLAST_ASSIGN_OR_RETURN(frozen_, IsFrozen(tx_, tenant_));
  }
  if (*frozen_) return because(Waiting::TENANT_FROZEN, kFrozenMessage);
  if (record.waits_for_vector()) {
    BALLAST_ASSIGN_OR_RETURN(const std::string why, WhyTheBaseKeeps(tx_, record, serving_));
    if (!why.empty()) return because(Waiting::BASE_MODEL, why);
  }
  if (RestsAfterError(record.lease(), now_)) {
    return because(
        Waiting::RESTS_AFTER_ERROR,
        absl::StrCat("the last attempt failed by the platform's fault; the job is tried "
                     "again in ",
                     absl::FormatDuration(absl::Ceil(
                         FromTimestamp(record.lease().retry_time()) - now_, absl::Seconds(1)))));
  }
  const TenantQuota& quota = quotas_.Of(tenant_);
  if (!may_run_.has_value()) {
    BALLAST_ASSIGN_OR_RETURN(may_run_, MayRun(tx_, tenant_, quota, 1));
  }
  if (!*may_run_) {
    return because(Waiting::RUNNING_LIMIT,
                   absl::StrCat(quota.max_running_jobs,
                                " jobs of the tenant may run at once, and as many do; the job "
                                "waits until one of them has ended"));
  }
  return because(Waiting::WORKERS_BUSY, "the workers are busy with jobs that go before it");
}

absl::StatusOr<Waiting> WaitingView::DescribeWithStart(const JobRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(Waiting waiting, Describe(record));
  if (waiting.reason() != Waiting::WORKERS_BUSY || !record.has_start_tag()) return waiting;
  BALLAST_ASSIGN_OR_RETURN(const QueueTime time, FindQueueTime(tx_));
  BALLAST_ASSIGN_OR_RETURN(const bool next, IsNext(tx_, record, time.virtual_time));
  const auto bounds = StartOf(time.clock, next ? 0 : record.start_tag() - time.virtual_time);
  if (!bounds.has_value()) return waiting;
  SetDuration(bounds->earliest, waiting.mutable_earliest_start());
  if (bounds->latest.has_value()) SetDuration(*bounds->latest, waiting.mutable_latest_start());
  return waiting;
}

void SayNoWorkers(Waiting& waiting) {
  waiting.set_reason(Waiting::NO_WORKERS);
  waiting.set_message("no worker is connected; the job starts when the operator has started one");
  waiting.clear_earliest_start();
  waiting.clear_latest_start();
}

}  // namespace ballast::server
