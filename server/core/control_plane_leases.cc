// SPDX-License-Identifier: Apache-2.0
// What of ControlPlane is about leases that several servers know.
#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"
#include "server/core/control_plane.h"
#include "server/core/records.h"
#include "server/core/worker_sign.h"

namespace ballast::server {
namespace {

using admin::v1::WorkerInfo;

// Until a store that cannot be read is asked again, by who does not need it at once.
constexpr absl::Duration kAfterFailure = absl::Seconds(1);

}  // namespace

absl::Status ControlPlane::TakeOverLocked(absl::Time now, Notices& notices) {
  next_take_over_ = now + kAfterFailure;
  // Silence that nobody could have broken is none.
  const bool watched = now - last_take_over_ <= 2 * BetweenSigns();
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) {
    return TakeOverLeases(tx, now, options_.lease, watched, leases_, workers_, seen_,
                          notices.moved);
  }));
  last_take_over_ = now;
  next_take_over_ = store_.shared() ? now + BetweenSigns() : absl::InfiniteFuture();
  return absl::OkStatus();
}

absl::StatusOr<LiveLease*> ControlPlane::FindLocked(absl::Time now, const worker::v1::Lease& wire,
                                                    const std::string& worker_id) {
  LiveLease* const known = leases_.Find(wire, worker_id);
  if (known != nullptr || !store_.shared() || wire.resource().empty()) return known;
  std::optional<LiveLease> given;
  const absl::Status looked_up = store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(given, FindLease(tx, wire, worker_id));
    return absl::OkStatus();
  });
  // Of a resource that cannot be there nobody holds a lease.
  if (absl::IsInvalidArgument(looked_up)) return nullptr;
  BALLAST_RETURN_IF_ERROR(looked_up);
  if (!given.has_value()) return nullptr;
  given->expires = now + options_.lease;
  leases_.Put(wire.resource(), *given);
  return leases_.Find(wire, worker_id);
}

bool ControlPlane::RenewLocked(absl::Time now, LiveLease& lease) {
  lease.expires = std::max(lease.expires, now + options_.lease);
  if (!store_.shared() || now < lease.next_sign) return false;
  lease.next_sign = now + BetweenSigns();
  return true;
}

void ControlPlane::ShowIdleLocked(absl::Time now, const std::string& worker_id) {
  if (!store_.shared()) return;
  absl::Time& next = next_idle_sign_[worker_id];
  if (now < next) return;
  next = now + BetweenSigns();
  signs_due_[worker_id] = worker::v1::Lease();
}

absl::Status ControlPlane::WriteSigns() {
  struct Due {
    WorkerInfo info;
    worker::v1::Lease wire;
    LiveLease live;
    int64_t sign = 0;
  };
  std::vector<Due> due;
  std::vector<std::string> worker_ids;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, wire] : signs_due_) {
      const LiveLease* const live = leases_.Find(wire, id);
      // It was under a lease that has ended.
      if (live == nullptr && !wire.resource().empty()) continue;
      Due& one = due.emplace_back(Due{workers_[id], wire, LiveLease(), 0});
      if (live != nullptr) one.live = *live;
      worker_ids.push_back(id);
    }
    signs_due_.clear();
  }
  if (due.empty()) return absl::OkStatus();
  // Heartbeats go on meanwhile.
  const absl::Status written = store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(PrefetchSigns(tx, worker_ids, worker_ids.size()));
    for (Due& one : due) {
      const bool works = !one.wire.resource().empty();
      BALLAST_ASSIGN_OR_RETURN(one.sign, WriteSign(tx, one.info, works ? &one.wire : nullptr,
                                                   works ? &one.live : nullptr));
    }
    return absl::OkStatus();
  });
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < due.size(); ++i) {
    LiveLease* const live = leases_.Find(due[i].wire, worker_ids[i]);
    if (live == nullptr) continue;
    // Where it failed the next heartbeat tries again.
    if (written.ok()) {
      live->sign = due[i].sign;
    } else {
      live->next_sign = absl::InfinitePast();
    }
  }
  return written;
}

absl::Status ControlPlane::ForgetLocked(absl::Time now) {
  const absl::Time remembered = now - kMemory;
  next_forgetting_ = now + kMemory / 60;
  std::erase_if(workers_, [&](const auto& entry) {
    return FromTimestamp(entry.second.last_seen_time()) < remembered;
  });
  std::erase_if(next_idle_sign_, [&](const auto& entry) { return entry.second < remembered; });
  const bool any = std::any_of(seen_.begin(), seen_.end(),
                               [&](const auto& entry) { return entry.second.since < remembered; });
  if (!any) return absl::OkStatus();
  return store_.Update([&](Transaction& tx) { return ForgetWorkers(tx, seen_, remembered); });
}

}  // namespace ballast::server
