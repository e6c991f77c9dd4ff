// SPDX-License-Identifier: Apache-2.0
// What of ControlPlane is about the blobs of leased work.
#include <utility>

#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/core/control_plane.h"
#include "server/core/leased_work.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/work_of.h"

namespace ballast::server {

using worker::v1::SynchronizeRequest;

absl::StatusOr<worker::v1::Work> ControlPlane::LeasedWorkLocked(absl::Time now,
                                                                const std::string& worker_id,
                                                                const worker::v1::Lease& wire) {
  BALLAST_ASSIGN_OR_RETURN(const LiveLease* const live, FindLocked(now, wire, worker_id));
  if (live == nullptr) return LeaseLost(wire);
  worker::v1::Work work;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto held, HeldBy(tx, wire, worker_id));
    BALLAST_ASSIGN_OR_RETURN(work, held->ToWork());
    return absl::OkStatus();
  }));
  return work;
}

absl::StatusOr<std::string> ControlPlane::BaseDigestOf(absl::Time now, const std::string& worker_id,
                                                       const worker::v1::Lease& lease) {
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(const worker::v1::Work work, LeasedWorkLocked(now, worker_id, lease));
  return work.base_model().digest();
}

absl::Status ControlPlane::CheckReadable(absl::Time now, const std::string& worker_id,
                                         const worker::v1::Lease& wire, const std::string& blob) {
  BALLAST_RETURN_IF_ERROR(EndDueLeases(now));
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(const worker::v1::Work work, LeasedWorkLocked(now, worker_id, wire));
  if (BlobsOf(work).count(blob) == 0) {
    return MakeError(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE",
                     "the lease does not need this blob; read only those that the work names");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ControlPlane::BlobToWrite(absl::Time now,
                                                      const worker::v1::WriteBlobRequest& first) {
  BALLAST_RETURN_IF_ERROR(EndDueLeases(now));
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(const LiveLease* const live,
                           FindLocked(now, first.lease(), first.worker_id()));
  if (live == nullptr) return LeaseLost(first.lease());
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
  BALLAST_RETURN_IF_ERROR(EndDueLeases(now));
  const std::string& resource = first.lease().resource();
  {
    absl::MutexLock lock(&mutex_);
    BALLAST_ASSIGN_OR_RETURN(const LiveLease* const live,
                             FindLocked(now, first.lease(), first.worker_id()));
    if (live == nullptr) return LeaseLost(first.lease());
    ++committing_[resource];
  }
  // It may wait for a network, so nothing is locked; and the lease does not end meanwhile, or a
  // stale write would leave a file behind.
  const absl::Status committed = commit();
  absl::MutexLock lock(&mutex_);
  if (--committing_[resource] == 0) committing_.erase(resource);
  BALLAST_RETURN_IF_ERROR(committed);
  const bool checkpoint = first.has_checkpoint_step();
  if (checkpoint) {
    PassKillPoint("server.checkpoint.written");
  } else {
    PassKillPoint("server.result_file.written");
  }
  // Only another server can have ended the lease meanwhile.
  if (!checkpoint && !store_.shared()) return absl::OkStatus();
  bool lost = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, LeasedWork::Load(tx, resource));
    lost = work == nullptr || !work->IsHeld(first.lease(), first.worker_id());
    if (lost) {
      // The files of the attempt may have been deleted before this one was there; or its worker has
      // written it once more, at another server, and that one counts.
      const bool named = work != nullptr && work->NamesBlob(blob);
      return named ? absl::OkStatus() : tx.AddGarbage(blob);
    }
    if (!checkpoint) return absl::OkStatus();
    BALLAST_RETURN_IF_ERROR(work->TakeCheckpoint(blob, first.checkpoint_step()));
    return work->Store();
  }));
  if (lost) return LeaseLost(first.lease());
  if (checkpoint) PassKillPoint("server.checkpoint.recorded");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobFile>> ControlPlane::ResultBlobs(absl::Time now,
                                                                const SynchronizeRequest& request) {
  absl::MutexLock lock(&mutex_);
  const worker::v1::Lease& wire = request.finished().lease();
  BALLAST_ASSIGN_OR_RETURN(const LiveLease* const lease,
                           FindLocked(now, wire, request.worker_id()));
  std::vector<BlobFile> files;
  // A stale or repeated report has no files to check: Synchronize answers it.
  if (lease == nullptr) return files;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto work, LeasedWork::LoadHeld(tx, wire, request.worker_id()));
    if (work == nullptr) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(files, work->FilesOfResult(request.finished()));
    return absl::OkStatus();
  }));
  return files;
}

absl::Status ControlPlane::Renew(absl::Time now, const std::string& worker_id,
                                 const worker::v1::Lease& wire) {
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(LiveLease* const lease, FindLocked(now, wire, worker_id));
  if (lease == nullptr || !RenewLocked(now, *lease)) return absl::OkStatus();
  admin::v1::WorkerInfo info = workers_[worker_id];
  info.set_name(WorkerName(worker_id));
  *info.mutable_last_seen_time() = ToTimestamp(now);
  int64_t written = 0;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(written, WriteSign(tx, info, &wire, lease));
    return absl::OkStatus();
  }));
  lease->sign = written;
  return absl::OkStatus();
}

}  // namespace ballast::server
