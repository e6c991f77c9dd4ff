// SPDX-License-Identifier: Apache-2.0
#include "server/core/control_plane.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "server/core/leased_job.h"
#include "server/core/leased_work.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"
#include "server/core/transitions.h"

namespace ballast::server {

// What to tell the listener once the lock is released.
struct ControlPlane::Notices {
  std::vector<std::string> changed;
  bool work_added = false;
  bool garbage_added = false;
};

namespace {

using admin::v1::Vector;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

constexpr absl::Duration kWorkerMemory = absl::Hours(1);

absl::Status LeaseLost(const worker::v1::Lease& lease) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "LEASE_LOST",
                   absl::StrCat("the lease on ", lease.resource(), " with epoch ", lease.epoch(),
                                " is not held by this worker any more; drop the work"),
                   {{"resource", lease.resource()}});
}

worker::v1::Lease ToWire(const std::string& resource, int64_t epoch) {
  worker::v1::Lease wire;
  wire.set_resource(resource);
  wire.set_epoch(epoch);
  return wire;
}

// What the worker holds the lease on. FAILED_PRECONDITION (LEASE_LOST).
absl::StatusOr<std::unique_ptr<LeasedWork>> HeldBy(Transaction& tx, const worker::v1::Lease& lease,
                                                   const std::string& worker_id) {
  BALLAST_ASSIGN_OR_RETURN(auto work, LeasedWork::LoadHeld(tx, lease, worker_id));
  if (work == nullptr) return LeaseLost(lease);
  return work;
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
  absl::MutexLock lock(&plane->mutex_);
  BALLAST_RETURN_IF_ERROR(plane->RestoreLocked(now));
  return plane;
}

absl::Status ControlPlane::RestoreLocked(absl::Time now) {
  const auto restore = [&](const std::string& resource, const LeaseRecord& record, bool coarse) {
    const LiveLease* known = leases_.FindResource(resource);
    if (known != nullptr && known->epoch == record.epoch()) return;
    LiveLease lease;
    lease.epoch = record.epoch();
    lease.worker_id = record.worker_id();
    lease.expires = now + options_.lease;
    lease.coarse = coarse;
    leases_.Put(resource, lease);
  };
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    for (const auto state : kLeasedStates) {
      BALLAST_RETURN_IF_ERROR(ForEachInState<JobRecord>(
          tx, state, [&](const JobRecord& record) -> absl::StatusOr<bool> {
            BALLAST_ASSIGN_OR_RETURN(const bool coarse, LeasedJob(tx, record).IsCoarse());
            restore(record.job().name(), record.lease(), coarse);
            return true;
          }));
    }
    return ForEachInState<VectorRecord>(tx, Vector::TRAINING,
                                        [&](const VectorRecord& record) -> absl::StatusOr<bool> {
                                          restore(record.vector().name(), record.lease(), false);
                                          return true;
                                        });
  }));
  doubtful_ = false;
  return absl::OkStatus();
}

void ControlPlane::Tell(const Notices& notices) {
  for (const std::string& name : notices.changed) {
    if (const auto parsed = ParseJobName(name, "name"); parsed.ok()) {
      listener_.JobChanged(parsed->tenant, parsed->id);
    }
  }
  if (notices.work_added) listener_.WorkAdded();
  if (notices.garbage_added) listener_.GarbageAdded();
}

absl::Status ControlPlane::Enter(absl::Time now) {
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
  if (doubtful_) BALLAST_RETURN_IF_ERROR(RestoreLocked(now));
  for (auto it = workers_.begin(); it != workers_.end();) {
    const bool gone = FromTimestamp(it->second.last_seen_time()) + kWorkerMemory < now;
    it = gone ? workers_.erase(it) : std::next(it);
  }
  while (!retries_.empty() && *retries_.begin() <= now) {
    retries_.erase(retries_.begin());
    front_ = QueueFront();
    notices.work_added = true;
  }
  for (const std::string& resource : leases_.Due(now)) {
    if (committing_.count(resource) != 0) continue;
    const LiveLease lease = *leases_.FindResource(resource);
    BALLAST_RETURN_IF_ERROR(ExpireLocked(now, resource, lease, notices));
  }
  return absl::OkStatus();
}

absl::Status ControlPlane::ExpireLocked(absl::Time now, const std::string& resource,
                                        const LiveLease& lease, Notices& notices) {
  bool held = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(
        auto work, LeasedWork::LoadHeld(tx, ToWire(resource, lease.epoch), lease.worker_id));
    held = work != nullptr;
    if (!held) return absl::OkStatus();
    return work->Move(EventOfExpiry(work->lease(), options_.max_attempts), {}, now);
  }));
  if (held) PassKillPoint("server.lease.ended");
  leases_.Erase(resource);
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
  {
    absl::MutexLock lock(&mutex_);
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
  if (LiveLease* lease = leases_.Find(own, request.worker_id()); lease != nullptr) {
    lease->expires = now + options_.lease;
  }
  BALLAST_RETURN_IF_ERROR(EnterLocked(now, notices));

  admin::v1::WorkerInfo& info = workers_[request.worker_id()];
  info.set_name(absl::StrCat("workers/", request.worker_id()));
  info.set_device(ValidUtf8(request.device(), 200));
  info.set_version(ValidUtf8(request.version(), 100));
  *info.mutable_last_seen_time() = ToTimestamp(now);
  info.clear_current_work();

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
    BALLAST_RETURN_IF_ERROR(HandOutLocked(now, request.worker_id(), response, notices));
    if (response.has_work()) info.set_current_work(response.work().lease().resource());
  }
  return response;
}

absl::Status ControlPlane::HeartbeatLocked(absl::Time now, const SynchronizeRequest& request,
                                           SynchronizeResponse& response, Notices& notices) {
  const SynchronizeRequest::Busy& busy = request.busy();
  LiveLease* lease = leases_.Find(busy.lease(), request.worker_id());
  if (lease == nullptr) {
    response.mutable_stop()->set_lease_lost(true);
    return absl::OkStatus();
  }
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
  if (news) {
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const auto work, HeldBy(tx, busy.lease(), request.worker_id()));
      BALLAST_RETURN_IF_ERROR(work->TakeProgress(busy, now));
      return work->Store();
    }));
    PassKillPoint("server.progress.recorded");
  }
  notices.changed.push_back(busy.lease().resource());
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

absl::Status ControlPlane::HandOutLocked(absl::Time now, const std::string& worker_id,
                                         SynchronizeResponse& response, Notices& notices) {
  // A worker that holds a lease and says it is idle has either not got our answer, and gets it
  // again, or has forgotten its work, which is then lost.
  for (const std::string& resource : leases_.HeldBy(worker_id)) {
    const LiveLease lease = *leases_.FindResource(resource);
    if (lease.heard) {
      BALLAST_RETURN_IF_ERROR(ExpireLocked(now, resource, lease, notices));
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
  bool waits = false;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(waits, AnythingWaits(tx, now, front_));
    return absl::OkStatus();
  }));
  if (!waits) return absl::OkStatus();
  std::optional<worker::v1::Work> work;
  std::vector<std::string> changed;
  LiveLease lease;
  const absl::Status given = store_.Update([&](Transaction& tx) -> absl::Status {
    changed.clear();
    BALLAST_ASSIGN_OR_RETURN(
        work, TakeNext(tx, worker_id, now, ids_, serving_, quotas_, front_, changed));
    if (!work.has_value()) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(const auto taken, LeasedWork::Load(tx, work->lease().resource()));
    BALLAST_ASSIGN_OR_RETURN(lease.coarse, taken->IsCoarse());
    return absl::OkStatus();
  });
  if (!given.ok()) {
    doubtful_ = doubtful_ || ErrorReason(given) == "COMMIT_UNKNOWN";
    return given;
  }
  notices.changed.insert(notices.changed.end(), changed.begin(), changed.end());
  if (!work.has_value()) return absl::OkStatus();
  PassKillPoint("server.work.taken");
  lease.epoch = work->lease().epoch();
  lease.worker_id = worker_id;
  lease.expires = now + options_.lease;
  lease.measured = work->fine_tune().checkpoint_blob().empty();
  lease.measured_from = now;
  leases_.Put(work->lease().resource(), lease);
  *response.mutable_work() = *std::move(work);
  return absl::OkStatus();
}

absl::StatusOr<worker::v1::Work> ControlPlane::LeasedWorkLocked(const std::string& worker_id,
                                                                const worker::v1::Lease& wire) {
  if (leases_.Find(wire, worker_id) == nullptr) return LeaseLost(wire);
  worker::v1::Work work;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto held, HeldBy(tx, wire, worker_id));
    BALLAST_ASSIGN_OR_RETURN(work, held->ToWork());
    return absl::OkStatus();
  }));
  return work;
}

absl::StatusOr<std::string> ControlPlane::BaseDigestOf(const std::string& worker_id,
                                                       const worker::v1::Lease& lease) {
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(const worker::v1::Work work, LeasedWorkLocked(worker_id, lease));
  return work.base_model().digest();
}

absl::Status ControlPlane::CheckReadable(absl::Time now, const std::string& worker_id,
                                         const worker::v1::Lease& wire, const std::string& blob) {
  BALLAST_RETURN_IF_ERROR(Enter(now));
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(const worker::v1::Work work, LeasedWorkLocked(worker_id, wire));
  if (BlobsOf(work).count(blob) == 0) {
    return MakeError(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE",
                     "the lease does not need this blob; read only those that the work names");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ControlPlane::BlobToWrite(absl::Time now,
                                                      const worker::v1::WriteBlobRequest& first) {
  BALLAST_RETURN_IF_ERROR(Enter(now));
  absl::MutexLock lock(&mutex_);
  if (leases_.Find(first.lease(), first.worker_id()) == nullptr) return LeaseLost(first.lease());
  std::string blob;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, HeldBy(tx, first.lease(), first.worker_id()));
    BALLAST_ASSIGN_OR_RETURN(blob, work->BlobOfWrite(first));
    return absl::OkStatus();
  }));
  return blob;
}

absl::Status ControlPlane::CommitBlob(absl::Time now, const worker::v1::WriteBlobRequest& first,
                                      const std::string& blob,
                                      const std::function<absl::Status()>& commit) {
  BALLAST_RETURN_IF_ERROR(Enter(now));
  const std::string& resource = first.lease().resource();
  {
    absl::MutexLock lock(&mutex_);
    if (leases_.Find(first.lease(), first.worker_id()) == nullptr) return LeaseLost(first.lease());
    ++committing_[resource];
  }
  // It may wait for a network, so nothing is locked; and the lease does not end meanwhile, or a
  // stale write would leave a file behind.
  const absl::Status committed = commit();
  absl::MutexLock lock(&mutex_);
  if (--committing_[resource] == 0) committing_.erase(resource);
  BALLAST_RETURN_IF_ERROR(committed);
  if (!first.has_checkpoint_step()) {
    PassKillPoint("server.result_file.written");
    return absl::OkStatus();
  }
  PassKillPoint("server.checkpoint.written");
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, HeldBy(tx, first.lease(), first.worker_id()));
    BALLAST_RETURN_IF_ERROR(work->TakeCheckpoint(blob, first.checkpoint_step()));
    return work->Store();
  }));
  PassKillPoint("server.checkpoint.recorded");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobFile>> ControlPlane::ResultBlobs(absl::Time now,
                                                                const SynchronizeRequest& request) {
  absl::MutexLock lock(&mutex_);
  const worker::v1::Lease& wire = request.finished().lease();
  LiveLease* lease = leases_.Find(wire, request.worker_id());
  std::vector<BlobFile> files;
  // A stale or repeated report has no files to check: Synchronize answers it.
  if (lease == nullptr) return files;
  // Renewed before the files are read, which may take longer than what is left of it.
  lease->expires = now + options_.lease;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, LeasedWork::LoadHeld(tx, wire, request.worker_id()));
    if (work == nullptr) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(files, work->FilesOfResult(request.finished()));
    return absl::OkStatus();
  }));
  return files;
}

std::optional<v1::JobProgress> ControlPlane::LiveProgress(const std::string& resource) {
  absl::MutexLock lock(&mutex_);
  const LiveLease* lease = leases_.FindResource(resource);
  if (lease == nullptr || !lease->heard) return std::nullopt;
  if (lease->coarse && lease->evaluations == 0) return std::nullopt;
  return lease->progress;
}

std::vector<admin::v1::WorkerInfo> ControlPlane::ListWorkers(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  std::vector<admin::v1::WorkerInfo> workers;
  for (const auto& [id, info] : workers_) {
    if (FromTimestamp(info.last_seen_time()) + kWorkerMemory >= now) workers.push_back(info);
  }
  return workers;
}

int64_t ControlPlane::LeasesLost() const {
  absl::MutexLock lock(&mutex_);
  return leases_lost_;
}

}  // namespace ballast::server
