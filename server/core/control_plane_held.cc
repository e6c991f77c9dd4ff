// SPDX-License-Identifier: Apache-2.0
// What of ControlPlane is about calls of idle workers that were held.
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "server/core/control_plane.h"
#include "server/core/worker_sign.h"

namespace ballast::server {
namespace {

using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

absl::Status CallStale() {
  return MakeError(absl::StatusCode::kAborted, "CALL_STALE",
                   "the worker has got work by a later call; this one is of no use any more");
}

}  // namespace

std::vector<absl::StatusOr<SynchronizeResponse>> ControlPlane::SynchronizeHeld(
    absl::Time now, const std::vector<const SynchronizeRequest*>& requests) {
  std::vector<absl::StatusOr<SynchronizeResponse>> answers(requests.size());
  const auto all_fail = [&](const absl::Status& status) {
    for (auto& answer : answers) answer = status;
  };
  std::vector<std::string> ids;
  for (const SynchronizeRequest* request : requests) ids.push_back(request->worker_id());
  std::vector<std::optional<GivenLease>> last(requests.size());
  if (store_.shared()) {
    const absl::Status looked_up = store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_RETURN_IF_ERROR(PrefetchSigns(tx, ids, ids.size(), Hold::kNone));
      for (size_t i = 0; i < ids.size(); ++i) {
        BALLAST_ASSIGN_OR_RETURN(last[i], FindLastLease(tx, ids[i]));
      }
      return absl::OkStatus();
    });
    if (!looked_up.ok()) {
      all_fail(looked_up);
      return answers;
    }
  }
  Notices notices;
  {
    absl::MutexLock lock(&mutex_);
    std::vector<size_t> asking;
    std::vector<std::string> asking_ids;
    const absl::Cleanup done = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      for (const std::string& id : asking_ids) finding_work_.erase(id);
    };
    if (const absl::Status entered = EnterLocked(now, notices); !entered.ok()) {
      all_fail(entered);
    } else {
      for (size_t i = 0; i < requests.size(); ++i) {
        answers[i] = MeetHeldLocked(now, *requests[i], last[i], notices);
        if (!answers[i].ok() || answers[i]->has_work()) continue;
        finding_work_.insert(ids[i]);
        asking.push_back(i);
        asking_ids.push_back(ids[i]);
      }
    }
    std::vector<WorkOrNone> found = AskForWorkLocked(now, asking_ids, notices);
    for (size_t n = 0; n < asking.size(); ++n) {
      auto& answer = answers[asking[n]];
      if (!found[n].ok()) {
        answer = found[n].status();
      } else if (found[n]->has_value()) {
        *answer->mutable_work() = **std::move(found[n]);
        workers_[asking_ids[n]].set_current_work(answer->work().lease().resource());
      } else {
        ShowIdleLocked(now, asking_ids[n]);
      }
    }
  }
  Tell(notices);
  return answers;
}

absl::StatusOr<SynchronizeResponse> ControlPlane::MeetHeldLocked(
    absl::Time now, const SynchronizeRequest& request, const std::optional<GivenLease>& last,
    Notices& notices) {
  const std::string& id = request.worker_id();
  // By another call, to which it listens.
  if (finding_work_.count(id) != 0) return CallStale();
  KeepLastLocked(now, id, last);
  for (const std::string& resource : leases_.HeldBy(id)) {
    if (leases_.FindResource(resource)->heard || committing_.count(resource) != 0) {
      return CallStale();
    }
  }
  SynchronizeResponse response;
  SetDuration(options_.heartbeat, response.mutable_heartbeat_interval());
  response.mutable_idle();
  BALLAST_RETURN_IF_ERROR(GiveAgainLocked(now, id, response, notices));
  admin::v1::WorkerInfo& info = SeeLocked(now, request);
  if (response.has_work()) info.set_current_work(response.work().lease().resource());
  return response;
}

void ControlPlane::KeepLastLocked(absl::Time now, const std::string& worker_id,
                                  const std::optional<GivenLease>& last) {
  if (!last.has_value() || leases_.Find(last->wire, worker_id) != nullptr) return;
  LiveLease lease = last->live;
  lease.expires = now + options_.lease;
  leases_.Put(last->wire.resource(), lease);
}

}  // namespace ballast::server
