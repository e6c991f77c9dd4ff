// SPDX-License-Identifier: Apache-2.0
#include "server/core/control_plane.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "server/core/leased_work.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"
#include "server/core/transitions.h"

namespace ballast::server {

namespace {

using admin::v1::WorkerInfo;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

worker::v1::Lease ToWire(const std::string& resource, int64_t epoch) {
  worker::v1::Lease wire;
  wire.set_resource(resource);
  wire.set_epoch(epoch);
  return wire;
}

absl::Status CheckWorkerId(const std::string& id) {
  bool ok = !id.empty() && id.size() <= 63;
  for (const char c : id) {
    ok = ok && (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_');
  }
  if (ok) return absl::OkStatus();
  return FieldError("worker_id", "WORKER_ID_INVALID",
                    "worker_id must be 1 to 63 letters, digits, \"-\", \"_\" and \".\"");
}

// The event that an outcome is, given what the owner has asked for.
WorkEvent EventOf(const SynchronizeRequest::Finished& finished, const LeaseRecord& lease,
                  LeasedWork::Wish wish, int max_attempts, v1::JobError& error) {
  switch (finished.outcome_case()) {
    case SynchronizeRequest::Finished::kError:
      error = finished.error();
      return EventOfError(error, lease, max_attempts);
    case SynchronizeRequest::Finished::kHandedBack:
      return WorkEvent::kHandedBack;
    case SynchronizeRequest::Finished::kCancelled:
      if (wish == LeasedWork::Wish::kCancel) return WorkEvent::kStopped;
      break;
    case SynchronizeRequest::Finished::kPaused:
      // A cancel may have come since.
      if (finished.paused().checkpoint_failed()) error.set_reason("CHECKPOINT_FAILED");
      if (wish != LeasedWork::Wish::kGoOn) return WorkEvent::kPaused;
      break;
    default:
      return WorkEvent::kResult;
  }
  error.set_kind(v1::JobError::PLATFORM);
  error.set_reason("STOPPED_UNASKED");
  return EventOfError(error, lease, max_attempts);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Create(
    JobStore& store, IdSource& ids, ChangeListener& listener, const ServingVectors& serving,
    const Quotas& quotas, const Options& options, absl::Time now) {
  std::unique_ptr<ControlPlane> plane(
      new ControlPlane(store, ids, listener, serving, quotas, options));
  Notices nobody_knows_of;
  absl::MutexLock lock(&plane->mutex_);
  BALLAST_RETURN_IF_ERROR(plane->TakeOverLocked(now, nobody_knows_of));
  return plane;
}

void ControlPlane::Tell(const Notices& notices) {
  for (const std::string& name : notices.changed) {
    if (const auto parsed = ParseJobName(name, "name"); parsed.ok()) {
      listener_.JobChanged(parsed->tenant, parsed->id);
    }
  }
  for (const std::string& name : notices.moved) {
    if (const auto parsed = ParseJobName(name, "name"); parsed.ok()) {
      listener_.JobMoved(parsed->tenant, parsed->id);
    }
  }
  if (notices.work_added) listener_.WorkAdded();
  if (notices.garbage_added) listener_.GarbageAdded();
}

absl::Status ControlPlane::Enter(absl::Time now) {
  BALLAST_RETURN_IF_ERROR(EndDueLeases(now));
  return WriteSigns();
}

absl::Status ControlPlane::EndDueLeases(absl::Time now) {
  Notices notices;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = EnterLocked(now, notices);
  }
  Tell(notices);
  return status;
}

absl::Status ControlPlane::EnterLocked(absl::Time now, Notices& notices) {
  if (now >= next_take_over_) BALLAST_RETURN_IF_ERROR(TakeOverLocked(now, notices));
  if (now >= next_forgetting_) BALLAST_RETURN_IF_ERROR(ForgetLocked(now));
  while (!retries_.empty() && *retries_.begin() <= now) {
    retries_.erase(retries_.begin());
    front_ = QueueFront();
    notices.work_added = true;
  }
  for (const std::string& resource : leases_.Due(now)) {
    if (committing_.count(resource) != 0) continue;
    BALLAST_RETURN_IF_ERROR(ExpireLocked(now, resource, Why::kSilent, notices));
  }
  return absl::OkStatus();
}

absl::Status ControlPlane::ExpireLocked(absl::Time now, const std::string& resource, Why why,
                                        Notices& notices) {
  const LiveLease lease = *leases_.FindResource(resource);
  const worker::v1::Lease wire = ToWire(resource, lease.epoch);
  bool held = false;
  int64_t sign = lease.sign;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto work, LeasedWork::LoadHeld(tx, wire, lease.worker_id));
    held = work != nullptr;
    if (!held) return absl::OkStatus();
    if (store_.shared() && why == Why::kSilent) {
      BALLAST_ASSIGN_OR_RETURN(sign, SignUnder(tx, lease.worker_id, wire));
      if (sign != 0 && sign != lease.sign) return absl::OkStatus();
    }
    return work->Move(EventOfExpiry(work->lease(), options_.max_attempts), {}, now);
  }));
  if (held && sign != 0 && sign != lease.sign) {
    LiveLease heard = lease;
    heard.sign = sign;
    heard.expires = now + options_.lease;
    leases_.Put(resource, heard);
    return absl::OkStatus();
  }
  leases_.Erase(resource);
  // Another server may have ended it already.
  if (!held && store_.shared()) return absl::OkStatus();
  if (held) PassKillPoint("server.lease.ended");
  front_ = QueueFront();
  ++leases_lost_;
  notices.work_added = notices.garbage_added = true;
  notices.changed.push_back(resource);
  return absl::OkStatus();
}

absl::StatusOr<SynchronizeResponse> ControlPlane::Synchronize(absl::Time now,
                                                              const SynchronizeRequest& request) {
  BALLAST_RETURN_IF_ERROR(CheckWorkerId(request.worker_id()));
  Notices notices;
  absl::StatusOr<SynchronizeResponse> response;
  std::optional<GivenLease> last;
  if (request.has_idle() && store_.shared()) {
    BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(last, FindLastLease(tx, request.worker_id()));
      return absl::OkStatus();
    }));
  }
  {
    absl::MutexLock lock(&mutex_);
    // Where it was forgotten what follows finds it.
    KeepLastLocked(now, request.worker_id(), last);
    // It may end its leases.
    if (!request.has_busy()) WaitForCommitsLocked(request.worker_id());
    response = SynchronizeLocked(now, request, notices);
  }
  Tell(notices);
  return response;
}

void ControlPlane::WaitForCommits(const std::string& worker_id) {
  absl::MutexLock lock(&mutex_);
  WaitForCommitsLocked(worker_id);
}

void ControlPlane::WaitForCommitsLocked(const std::string& worker_id) {
  const auto has_committed = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const std::vector<std::string> held = leases_.HeldBy(worker_id);
    return std::none_of(held.begin(), held.end(), [&](const std::string& resource) {
      return committing_.count(resource) != 0;
    });
  };
  mutex_.Await(absl::Condition(&has_committed));
}

absl::StatusOr<SynchronizeResponse> ControlPlane::SynchronizeLocked(
    absl::Time now, const SynchronizeRequest& request, Notices& notices) {
  // The caller's own lease is renewed by this very call, so it must not be found due first.
  const worker::v1::Lease& own =
      request.has_busy() ? request.busy().lease() : request.finished().lease();
  BALLAST_ASSIGN_OR_RETURN(LiveLease* const renewed, FindLocked(now, own, request.worker_id()));
  if (renewed != nullptr) renewed->expires = std::max(renewed->expires, now + options_.lease);
  BALLAST_RETURN_IF_ERROR(EnterLocked(now, notices));

  WorkerInfo& info = SeeLocked(now, request);
  SynchronizeResponse response;
  SetDuration(options_.heartbeat, response.mutable_heartbeat_interval());
  if (request.has_busy()) {
    BALLAST_RETURN_IF_ERROR(HeartbeatLocked(now, request, response, notices));
    if (!response.stop().lease_lost()) info.set_current_work(request.busy().lease().resource());
    return response;
  }
  if (request.has_finished()) {
    BALLAST_RETURN_IF_ERROR(FinishLocked(now, request, notices));
  }
  response.mutable_idle();
  if (!request.draining()) {
    BALLAST_RETURN_IF_ERROR(FindWorkLocked(now, request.worker_id(), response, notices));
    if (response.has_work()) {
      workers_[request.worker_id()].set_current_work(response.work().lease().resource());
    }
  }
  if (!response.has_work()) ShowIdleLocked(now, request.worker_id());
  return response;
}

WorkerInfo& ControlPlane::SeeLocked(absl::Time now, const SynchronizeRequest& request) {
  WorkerInfo& info = workers_[request.worker_id()];
  info.set_name(WorkerName(request.worker_id()));
  info.set_device(ValidUtf8(request.device(), 200));
  info.set_version(ValidUtf8(request.version(), 100));
  *info.mutable_last_seen_time() = ToTimestamp(now);
  info.clear_current_work();
  return info;
}

absl::Status ControlPlane::HeartbeatLocked(absl::Time now, const SynchronizeRequest& request,
                                           SynchronizeResponse& response, Notices& notices) {
  const SynchronizeRequest::Busy& busy = request.busy();
  LiveLease* const lease = leases_.Find(busy.lease(), request.worker_id());
  if (lease == nullptr) {
    response.mutable_stop()->set_lease_lost(true);
    return absl::OkStatus();
  }
  const bool is_first = !lease->heard;
  lease->Hear(busy, now);
  response.mutable_proceed();
  bool news = false;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, HeldBy(tx, busy.lease(), request.worker_id()));
    if (work->OwnersWish() != LeasedWork::Wish::kGoOn) {
      response.mutable_stop()->set_pause(work->OwnersWish() == LeasedWork::Wish::kPause);
    }
    news = work->HasNews(busy);
    return absl::OkStatus();
  }));
  const bool sign_is_due = RenewLocked(now, *lease);
  // The first one tells other servers that the worker knows of its work.
  if (sign_is_due && !is_first) signs_due_[request.worker_id()] = busy.lease();
  if (news || (sign_is_due && is_first)) {
    WorkerInfo info = workers_[request.worker_id()];
    info.set_current_work(busy.lease().resource());
    int64_t sign = lease->sign;
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const auto work, HeldBy(tx, busy.lease(), request.worker_id()));
      if (news) {
        BALLAST_RETURN_IF_ERROR(work->TakeProgress(busy, now));
        BALLAST_RETURN_IF_ERROR(work->Store());
      }
      if (!sign_is_due || !is_first) return absl::OkStatus();
      BALLAST_ASSIGN_OR_RETURN(sign, WriteSign(tx, info, &busy.lease(), lease));
      return absl::OkStatus();
    }));
    lease->sign = sign;
    if (news) PassKillPoint("server.progress.recorded");
  }
  if (news) notices.changed.push_back(busy.lease().resource());
  notices.moved.push_back(busy.lease().resource());
  return absl::OkStatus();
}

absl::Status ControlPlane::FinishLocked(absl::Time now, const SynchronizeRequest& request,
                                        Notices& notices) {
  const SynchronizeRequest::Finished& finished = request.finished();
  const worker::v1::Lease& wire = finished.lease();
  const std::string& worker_id = request.worker_id();
  const LiveLease* live = leases_.Find(wire, worker_id);
  bool repeated = false;
  std::optional<absl::Time> retry;
  if (finished.has_delta()) PassKillPoint("server.delta.checked");
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    retry.reset();
    BALLAST_ASSIGN_OR_RETURN(const auto work, LeasedWork::Load(tx, wire.resource()));
    if (work == nullptr) return LeaseLost(wire);
    LeaseRecord& lease = work->lease();
    repeated = lease.finished_epoch() == wire.epoch() && lease.finished_by() == worker_id;
    if (repeated) return absl::OkStatus();
    if (live == nullptr || !work->IsHeld(wire, worker_id)) return LeaseLost(wire);
    BALLAST_ASSIGN_OR_RETURN(const auto files, work->FilesOfResult(finished));
    lease.set_finished_epoch(wire.epoch());
    lease.set_finished_by(worker_id);
    if (finished.has_final_state()) {
      BALLAST_RETURN_IF_ERROR(work->TakeProgress(finished.final_state(), now));
    }
    v1::JobError error;
    WorkEvent event = EventOf(finished, lease, work->OwnersWish(), options_.max_attempts, error);
    if (event == WorkEvent::kResult) {
      BALLAST_ASSIGN_OR_RETURN(
          event, work->TakeResult(finished, files, *live, options_.withheld_budget, now));
    }
    if (event == WorkEvent::kPlatformError) {
      const int errors = lease.failed_attempts() - lease.lost_attempts() + 1;
      retry = now + RetryAfter(errors, options_.retry);
      *lease.mutable_retry_time() = ToTimestamp(*retry);
    }
    return work->Move(event, error, now);
  }));
  if (finished.has_delta() && !repeated) PassKillPoint("server.delta.recorded");
  // A repeated report may be one whose first answer was lost before memory was brought up to it.
  if (repeated && live == nullptr) return absl::OkStatus();
  if (retry.has_value()) retries_.insert(*retry);
  leases_.Erase(wire.resource());
  if (!finished.has_delta()) front_ = QueueFront();  // it may wait again
  notices.work_added = notices.garbage_added = true;
  notices.changed.push_back(wire.resource());
  return absl::OkStatus();
}

absl::Status ControlPlane::FindWorkLocked(absl::Time now, const std::string& worker_id,
                                          SynchronizeResponse& response, Notices& notices) {
  // Another call of the same worker's, whose answer is lost, may be getting it work.
  const auto asks_once = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return finding_work_.count(worker_id) == 0;
  };
  mutex_.Await(absl::Condition(&asks_once));
  finding_work_.insert(worker_id);
  const absl::Cleanup done = [&]()
                                 ABSL_NO_THREAD_SAFETY_ANALYSIS { finding_work_.erase(worker_id); };
  BALLAST_RETURN_IF_ERROR(GiveAgainLocked(now, worker_id, response, notices));
  if (response.has_work()) return absl::OkStatus();
  std::vector<WorkOrNone> asked = AskForWorkLocked(now, {worker_id}, notices);
  WorkOrNone& work = asked.front();
  if (work.ok() && work->has_value()) *response.mutable_work() = **std::move(work);
  return work.status();
}

absl::Status ControlPlane::GiveAgainLocked(absl::Time now, const std::string& worker_id,
                                           SynchronizeResponse& response, Notices& notices) {
  // A worker that holds a lease and says it is idle has either not got our answer, and gets it
  // again, or has forgotten its work, which is then lost.
  for (const std::string& resource : leases_.HeldBy(worker_id)) {
    const LiveLease lease = *leases_.FindResource(resource);
    if (lease.heard) {
      BALLAST_RETURN_IF_ERROR(ExpireLocked(now, resource, Why::kForgotten, notices));
      continue;
    }
    BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const auto work,
                               LeasedWork::LoadHeld(tx, ToWire(resource, lease.epoch), worker_id));
      if (work == nullptr) return absl::OkStatus();
      BALLAST_ASSIGN_OR_RETURN(*response.mutable_work(), work->ToWork());
      return absl::OkStatus();
    }));
    if (response.has_work()) return absl::OkStatus();
    // It was taken back (its vector was rejected): it is nobody's now.
    leases_.Erase(resource);
  }
  return absl::OkStatus();
}

std::vector<ControlPlane::WorkOrNone> ControlPlane::AskForWorkLocked(
    absl::Time now, const std::vector<std::string>& worker_ids, Notices& notices) {
  std::deque<Asking> own;
  for (const std::string& id : worker_ids) {
    asking_.push_back(&own.emplace_back(Asking{id, std::nullopt}));
  }
  const auto answered = [&] {
    return std::all_of(own.begin(), own.end(),
                       [](const Asking& one) { return one.answer.has_value(); });
  };
  const auto may_go_on = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return answered() || !handing_out_;
  };
  while (!answered()) {
    mutex_.Await(absl::Condition(&may_go_on));
    // Others who ask may be before these, so that once is not always enough.
    if (!answered()) HandOutLocked(now, notices);
  }
  std::vector<WorkOrNone> answers;
  answers.reserve(own.size());
  for (Asking& one : own) answers.push_back(*std::move(one.answer));
  return answers;
}

void ControlPlane::HandOutLocked(absl::Time now, Notices& notices) {
  handing_out_ = true;
  const std::vector<Asking*> asking(
      asking_.begin(),
      asking_.begin() + static_cast<ptrdiff_t>(std::min(asking_.size(), kMostAtOnce)));
  asking_.erase(asking_.begin(), asking_.begin() + asking.size());
  std::vector<std::string> worker_ids;
  for (const Asking* one : asking) worker_ids.push_back(one->worker_id);
  const QueueFront front_before = front_;
  QueueFront front;
  std::vector<WorkerInfo> infos;
  for (const std::string& id : worker_ids) infos.push_back(workers_[id]);

  // Heartbeats go on meanwhile.
  mutex_.Unlock();
  std::vector<worker::v1::Work> given;
  std::vector<LiveLease> leases;
  std::vector<std::string> changed;
  const absl::Status status = store_.Update([&](Transaction& tx) -> absl::Status {
    changed.clear();
    leases.clear();
    front = front_before;
    BALLAST_ASSIGN_OR_RETURN(
        given, TakeNext(tx, worker_ids, now, ids_, serving_, quotas_, front, changed));
    if (store_.shared()) BALLAST_RETURN_IF_ERROR(PrefetchSigns(tx, worker_ids, given.size()));
    for (size_t i = 0; i < given.size(); ++i) {
      BALLAST_ASSIGN_OR_RETURN(const auto taken, LeasedWork::Load(tx, given[i].lease().resource()));
      LiveLease& lease = leases.emplace_back();
      lease.epoch = given[i].lease().epoch();
      lease.worker_id = worker_ids[i];
      lease.expires = now + options_.lease;
      BALLAST_ASSIGN_OR_RETURN(lease.coarse, taken->IsCoarse());
      lease.measured = given[i].fine_tune().checkpoint_blob().empty();
      lease.measured_from = now;
      if (!store_.shared()) continue;
      infos[i].set_current_work(given[i].lease().resource());
      BALLAST_ASSIGN_OR_RETURN(lease.sign, WriteSign(tx, infos[i], &given[i].lease(), &lease));
    }
    return absl::OkStatus();
  });
  if (status.ok() && !given.empty()) PassKillPoint("server.work.taken");
  mutex_.Lock();

  handing_out_ = false;
  if (!status.ok()) {
    if (ErrorReason(status) == "COMMIT_UNKNOWN") next_take_over_ = now;
    for (Asking* one : asking) one->answer = status;
    return;
  }
  front_ = front;
  notices.changed.insert(notices.changed.end(), changed.begin(), changed.end());
  for (size_t i = 0; i < asking.size(); ++i) {
    if (i >= given.size()) {
      asking[i]->answer = std::optional<worker::v1::Work>();
      continue;
    }
    leases_.Put(given[i].lease().resource(), leases[i]);
    asking[i]->answer = std::move(given[i]);
  }
}

std::optional<v1::JobProgress> ControlPlane::LiveProgress(const std::string& resource) {
  absl::MutexLock lock(&mutex_);
  const LiveLease* lease = leases_.FindResource(resource);
  if (lease == nullptr || !lease->shown) return std::nullopt;
  return lease->progress;
}

std::vector<admin::v1::WorkerInfo> ControlPlane::ListWorkers(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  std::vector<admin::v1::WorkerInfo> workers;
  for (const auto& [id, info] : workers_) {
    if (FromTimestamp(info.last_seen_time()) + kMemory >= now) workers.push_back(info);
  }
  return workers;
}

bool ControlPlane::HasWorkers(absl::Time now) const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    return FromTimestamp(entry.second.last_seen_time()) + kPresent >= now;
  });
}

int64_t ControlPlane::LeasesLost() const {
  absl::MutexLock lock(&mutex_);
  return leases_lost_;
}

}  // namespace ballast::server
