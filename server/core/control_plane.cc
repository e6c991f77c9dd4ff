// SPDX-License-Identifier: Apache-2.0
#include "server/core/control_plane.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "server/core/gate_result.h"
#include "server/core/hand_out.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"
#include "server/core/transitions.h"
#include "server/core/work_result.h"

namespace ballast::server {

// What to tell the listener once the lock is released.
struct ControlPlane::Notices {
  std::vector<std::string> changed_jobs;
  bool work_added = false;
  bool garbage_added = false;
};

namespace {

using admin::v1::Vector;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

constexpr absl::Duration kWorkerMemory = absl::Hours(1);
// Weight of the newest job in the moving average of a base's speed.
constexpr double kSpeedWeight = 0.3;
// To which the time left is rounded where running time depends on the rows (S2).
constexpr absl::Duration kCoarseTimeLeft = absl::Minutes(1);

absl::Status LeaseLost(const worker::v1::Lease& lease) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "LEASE_LOST",
                   absl::StrCat("the lease on ", lease.resource(), " with epoch ", lease.epoch(),
                                " is not held by this worker any more; drop the work"),
                   {{"resource", lease.resource()}});
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

// True when the stored lease is the one that is spoken of.
bool Holds(const LeaseRecord& record, const worker::v1::Lease& lease,
           const std::string& worker_id) {
  return record.epoch() == lease.epoch() && record.worker_id() == worker_id;
}

// The event that an outcome is; `cancelling` when the owner has asked for a cancel.
WorkEvent EventOf(const SynchronizeRequest::Finished& finished, const LeaseRecord& lease,
                  bool cancelling, int max_attempts, v1::JobError& error) {
  switch (finished.outcome_case()) {
    case SynchronizeRequest::Finished::kError:
      error = finished.error();
      return EventOfError(error, lease, max_attempts);
    case SynchronizeRequest::Finished::kHandedBack:
      return WorkEvent::kHandedBack;
    case SynchronizeRequest::Finished::kCancelled:
      if (cancelling) return WorkEvent::kStopped;
      error.set_kind(v1::JobError::PLATFORM);
      error.set_reason("STOPPED_UNASKED");
      return EventOfError(error, lease, max_attempts);
    default:
      return WorkEvent::kResult;
  }
}

// Speed of the job that has just succeeded, into its base's moving average.
absl::Status LearnSpeed(Transaction& tx, const JobRecord& record, const LiveLease& lease,
                        absl::Time now) {
  if (!lease.measured) return absl::OkStatus();
  const double seconds = absl::ToDoubleSeconds(now - lease.measured_from);
  const auto tokens =
      static_cast<double>(record.job().progress().trained_tokens() - lease.measured_tokens);
  if (seconds <= 0 || tokens <= 0) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(record.job().base_model(), "base_model"));
  BALLAST_ASSIGN_OR_RETURN(auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
  if (!base.has_value()) return absl::OkStatus();
  const double speed = tokens / seconds;
  const double before = base->tokens_per_second();
  base->set_tokens_per_second(before == 0 ? speed : before + kSpeedWeight * (speed - before));
  return ReplaceRecord(tx, *base);
}

void SetReport(const SynchronizeRequest::VectorResult& result, Vector& vector) {
  vector.set_ciphertext_digest(result.ciphertext_digest());
  *vector.mutable_report() = result.report();
}

void UpdateProgress(const SynchronizeRequest::Busy& busy, absl::Time now, LiveLease& lease) {
  lease.heard = true;
  // Before the total is known the training has not begun, and the step of its checkpoint is not
  // reported yet.
  if (lease.evaluations_at_first < 0) lease.evaluations_at_first = busy.evaluations_size();
  // What is reported by row is of the last evaluation, which may be long ago: the next one is new.
  const bool current = !lease.coarse || busy.evaluations_size() > lease.evaluations_at_first;
  if (!lease.measured && current && busy.total_steps() > 0) {
    lease.measured = true;
    lease.measured_from = now;
    lease.measured_step = busy.step();
    lease.measured_tokens = busy.trained_tokens();
  }
  if (lease.coarse && busy.evaluations_size() <= lease.evaluations) return;
  lease.evaluations = busy.evaluations_size();
  lease.progress.set_step(busy.step());
  lease.progress.set_total_steps(busy.total_steps());
  lease.progress.set_trained_tokens(busy.trained_tokens());
  const int64_t done = busy.step() - lease.measured_step;
  if (lease.measured && done > 0 && busy.total_steps() >= busy.step()) {
    const absl::Duration per_step = (now - lease.measured_from) / done;
    absl::Duration left = per_step * (busy.total_steps() - busy.step());
    if (lease.coarse) left = absl::Ceil(left, kCoarseTimeLeft);
    lease.progress.mutable_time_left()->set_seconds(absl::ToInt64Seconds(left));
  }
}

// Whether tenants see the job's progress at evaluations only.
absl::StatusOr<bool> IsCoarse(Transaction& tx, const JobRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(record.job().base_model(), "base_model"));
  BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
  return !base.has_value() ||
         (!base->model().unprotected() && PolicyOf(*base) == admin::v1::VECTOR_POLICY_BY_ROW);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Create(JobStore& store, IdSource& ids,
                                                                   ChangeListener& listener,
                                                                   const ServingVectors& serving,
                                                                   const Options& options,
                                                                   absl::Time now) {
  std::unique_ptr<ControlPlane> plane(new ControlPlane(store, ids, listener, serving, options));
  BALLAST_RETURN_IF_ERROR(plane->Restore(now));
  return plane;
}

absl::Status ControlPlane::Restore(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  const auto restore = [&](const std::string& resource, const LeaseRecord& record, bool coarse) {
    LiveLease lease;
    lease.epoch = record.epoch();
    lease.worker_id = record.worker_id();
    lease.expires = now + options_.lease;
    lease.coarse = coarse;
    leases_.Put(resource, lease);
  };
  return store_.Read([&](Transaction& tx) -> absl::Status {
    for (const auto state : {FineTuningJob::RUNNING, FineTuningJob::CANCELLING}) {
      BALLAST_RETURN_IF_ERROR(ForEachInState<JobRecord>(
          tx, state, [&](const JobRecord& record) -> absl::StatusOr<bool> {
            BALLAST_ASSIGN_OR_RETURN(const bool coarse, IsCoarse(tx, record));
            restore(record.job().name(), record.lease(), coarse);
            return true;
          }));
    }
    return ForEachInState<VectorRecord>(tx, Vector::TRAINING,
                                        [&](const VectorRecord& record) -> absl::StatusOr<bool> {
                                          restore(record.vector().name(), record.lease(), false);
                                          return true;
                                        });
  });
}

void ControlPlane::Tell(const Notices& notices) {
  for (const std::string& name : notices.changed_jobs) {
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
  for (auto it = workers_.begin(); it != workers_.end();) {
    const bool gone = FromTimestamp(it->second.last_seen_time()) + kWorkerMemory < now;
    it = gone ? workers_.erase(it) : std::next(it);
  }
  for (const std::string& resource : leases_.Due(now)) {
    const LiveLease lease = *leases_.FindResource(resource);
    BALLAST_RETURN_IF_ERROR(ExpireLocked(now, resource, lease, notices));
  }
  return absl::OkStatus();
}

absl::Status ControlPlane::ExpireLocked(absl::Time now, const std::string& resource,
                                        const LiveLease& lease, Notices& notices) {
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(resource));
  worker::v1::Lease wire;
  wire.set_epoch(lease.epoch);
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    if (leased.is_vector) {
      BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<VectorRecord>(tx, "", leased.id));
      if (!record.has_value() || !Holds(record->lease(), wire, lease.worker_id)) {
        return absl::OkStatus();
      }
      return MoveVector(tx, *record, EventOfExpiry(record->lease(), options_.max_attempts), {},
                        now);
    }
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, leased.tenant, leased.id));
    if (!record.has_value() || !Holds(record->lease(), wire, lease.worker_id)) {
      return absl::OkStatus();
    }
    return MoveJob(tx, *record, EventOfExpiry(record->lease(), options_.max_attempts), {}, now);
  }));
  leases_.Erase(resource);
  ++leases_lost_;
  notices.work_added = notices.garbage_added = true;
  if (!leased.is_vector) notices.changed_jobs.push_back(resource);
  return absl::OkStatus();
}

absl::StatusOr<SynchronizeResponse> ControlPlane::Synchronize(absl::Time now,
                                                              const SynchronizeRequest& request) {
  BALLAST_RETURN_IF_ERROR(CheckWorkerId(request.worker_id()));
  Notices notices;
  absl::StatusOr<SynchronizeResponse> response;
  {
    absl::MutexLock lock(&mutex_);
    response = SynchronizeLocked(now, request, notices);
  }
  Tell(notices);
  return response;
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
  UpdateProgress(busy, now, *lease);
  response.mutable_proceed();
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(busy.lease().resource()));
  if (leased.is_vector) return absl::OkStatus();

  bool news = false;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<JobRecord>(tx, leased.tenant, leased.id));
    if (!record.has_value() || !Holds(record->lease(), busy.lease(), request.worker_id())) {
      return LeaseLost(busy.lease());
    }
    if (record->job().state() == FineTuningJob::CANCELLING) {
      response.mutable_stop()->set_lease_lost(false);
    }
    news = IsNewScreening(*record, busy);
    for (const auto& evaluation : busy.evaluations()) {
      news = news || evaluation.step() >= record->evaluated_until_step();
    }
    return absl::OkStatus();
  }));
  if (news) {
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, leased.tenant, leased.id));
      if (!record.has_value() || !Holds(record->lease(), busy.lease(), request.worker_id())) {
        return LeaseLost(busy.lease());
      }
      BALLAST_RETURN_IF_ERROR(RecordProgress(tx, *record, busy, now).status());
      return ReplaceRecord(tx, *record);
    }));
  }
  notices.changed_jobs.push_back(busy.lease().resource());
  return absl::OkStatus();
}

absl::Status ControlPlane::FinishLocked(absl::Time now, const SynchronizeRequest& request,
                                        Notices& notices) {
  const SynchronizeRequest::Finished& finished = request.finished();
  const worker::v1::Lease& wire = finished.lease();
  const std::string& worker_id = request.worker_id();
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(wire.resource()));
  BALLAST_ASSIGN_OR_RETURN(const auto files, FilesOfResult(finished));
  const LiveLease* live = leases_.Find(wire, worker_id);
  bool repeated = false;
  // Whether this epoch's end is known already; when not, it must be the one that is held.
  const auto claim = [&](LeaseRecord& lease) -> absl::Status {
    repeated = lease.finished_epoch() == wire.epoch() && lease.finished_by() == worker_id;
    if (repeated) return absl::OkStatus();
    if (live == nullptr || !Holds(lease, wire, worker_id)) return LeaseLost(wire);
    lease.set_finished_epoch(wire.epoch());
    lease.set_finished_by(worker_id);
    return absl::OkStatus();
  };
  v1::JobError error;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    if (leased.is_vector) {
      BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<VectorRecord>(tx, "", leased.id));
      if (!record.has_value()) return LeaseLost(wire);
      BALLAST_RETURN_IF_ERROR(claim(*record->mutable_lease()));
      if (repeated) return absl::OkStatus();
      const WorkEvent event =
          EventOf(finished, record->lease(), false, options_.max_attempts, error);
      if (event == WorkEvent::kResult) {
        SetReport(finished.vector(), *record->mutable_vector());
        record->set_sealed_blob(files[0].blob());
      }
      return MoveVector(tx, *record, event, error, now);
    }
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, leased.tenant, leased.id));
    if (!record.has_value()) return LeaseLost(wire);
    BALLAST_RETURN_IF_ERROR(claim(*record->mutable_lease()));
    if (repeated) return absl::OkStatus();
    if (finished.has_final_state()) {
      BALLAST_RETURN_IF_ERROR(RecordProgress(tx, *record, finished.final_state(), now).status());
    }
    const bool cancelling = record->job().state() == FineTuningJob::CANCELLING;
    WorkEvent event = EventOf(finished, record->lease(), cancelling, options_.max_attempts, error);
    if (event == WorkEvent::kResult) {
      BALLAST_ASSIGN_OR_RETURN(
          event, TakeDelta(tx, *record, finished.delta(), files, options_.withheld_budget, now));
      BALLAST_RETURN_IF_ERROR(LearnSpeed(tx, *record, *live, now));
    }
    return MoveJob(tx, *record, event, error, now);
  }));
  if (repeated) return absl::OkStatus();
  leases_.Erase(wire.resource());
  notices.work_added = notices.garbage_added = true;
  if (!leased.is_vector) notices.changed_jobs.push_back(wire.resource());
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
    BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(resource));
    worker::v1::Lease wire;
    wire.set_epoch(lease.epoch);
    BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
      if (leased.is_vector) {
        BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<VectorRecord>(tx, "", leased.id));
        if (!record.has_value() || !Holds(record->lease(), wire, worker_id)) {
          return absl::OkStatus();
        }
        BALLAST_ASSIGN_OR_RETURN(*response.mutable_work(), WorkOf(tx, *record));
      } else {
        BALLAST_ASSIGN_OR_RETURN(const auto record,
                                 GetRecord<JobRecord>(tx, leased.tenant, leased.id));
        if (!record.has_value() || !Holds(record->lease(), wire, worker_id)) {
          return absl::OkStatus();
        }
        BALLAST_ASSIGN_OR_RETURN(*response.mutable_work(), WorkOf(tx, *record));
      }
      return absl::OkStatus();
    }));
    if (response.has_work()) return absl::OkStatus();
    // It was taken back (its vector was rejected): it is nobody's now.
    leases_.Erase(resource);
  }
  std::optional<worker::v1::Work> work;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(work,
                             TakeNext(tx, worker_id, now, ids_, serving_, notices.changed_jobs));
    return absl::OkStatus();
  }));
  if (!work.has_value()) return absl::OkStatus();
  LiveLease lease;
  lease.epoch = work->lease().epoch();
  lease.worker_id = worker_id;
  lease.expires = now + options_.lease;
  lease.measured = work->fine_tune().checkpoint_blob().empty();
  lease.measured_from = now;
  lease.coarse = work->has_fine_tune() && !work->fine_tune().unprotected() &&
                 !work->fine_tune().vector_always();
  leases_.Put(work->lease().resource(), lease);
  *response.mutable_work() = *std::move(work);
  return absl::OkStatus();
}

absl::StatusOr<worker::v1::Work> ControlPlane::LeasedWorkLocked(const std::string& worker_id,
                                                                const worker::v1::Lease& wire) {
  if (leases_.Find(wire, worker_id) == nullptr) return LeaseLost(wire);
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(wire.resource()));
  worker::v1::Work work;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    if (leased.is_vector) {
      BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<VectorRecord>(tx, "", leased.id));
      if (!record.has_value()) return LeaseLost(wire);
      BALLAST_ASSIGN_OR_RETURN(work, WorkOf(tx, *record));
    } else {
      BALLAST_ASSIGN_OR_RETURN(const auto record,
                               GetRecord<JobRecord>(tx, leased.tenant, leased.id));
      if (!record.has_value()) return LeaseLost(wire);
      BALLAST_ASSIGN_OR_RETURN(work, WorkOf(tx, *record));
    }
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
  return BlobOfWrite(first);
}

absl::Status ControlPlane::CommitBlob(absl::Time now, const worker::v1::WriteBlobRequest& first,
                                      const std::string& blob,
                                      const std::function<absl::Status()>& commit) {
  BALLAST_RETURN_IF_ERROR(Enter(now));
  // Held over the commit on purpose: between a check and a commit outside of it the lease could
  // end, and a stale write would leave a file behind.
  absl::MutexLock lock(&mutex_);
  if (leases_.Find(first.lease(), first.worker_id()) == nullptr) return LeaseLost(first.lease());
  BALLAST_RETURN_IF_ERROR(commit());
  if (!first.has_checkpoint_step()) return absl::OkStatus();
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(first.lease().resource()));
  return store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, leased.tenant, leased.id));
    if (!record.has_value() || !Holds(record->lease(), first.lease(), first.worker_id())) {
      return LeaseLost(first.lease());
    }
    if (!record->checkpoint_blob().empty() && record->checkpoint_blob() != blob) {
      BALLAST_RETURN_IF_ERROR(tx.AddGarbage(record->checkpoint_blob()));
    }
    record->set_checkpoint_blob(blob);
    record->set_checkpoint_step(first.checkpoint_step());
    return ReplaceRecord(tx, *record);
  });
}

absl::StatusOr<std::vector<BlobFile>> ControlPlane::ResultBlobs(absl::Time now,
                                                                const SynchronizeRequest& request) {
  absl::MutexLock lock(&mutex_);
  LiveLease* lease = leases_.Find(request.finished().lease(), request.worker_id());
  // A stale or repeated report has no files to check: Synchronize answers it.
  if (lease == nullptr) return std::vector<BlobFile>();
  // Renewed before the files are read, which may take longer than what is left of it.
  lease->expires = now + options_.lease;
  return FilesOfResult(request.finished());
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
