// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_CONTROL_PLANE_H_
#define BALLAST_SERVER_CORE_CONTROL_PLANE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/admin_service.pb.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/hand_out.h"
#include "server/core/job_store.h"
#include "server/core/lease_table.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// Gives work to workers and takes its results. Every entry takes the time as an argument: it first
// ends the leases that are due, then acts. It has no clock, no thread and no files.
//
// Fencing (R1): epochs are in the store; who holds which epoch, until when, and how far the work is
// are kept in memory. A new ControlPlane on the same store gives every lease that it finds a full
// term. Thread safety: thread-safe. The listener is called without locks held.
class ControlPlane {
 public:
  struct Options {
    absl::Duration lease = absl::Seconds(30);
    absl::Duration heartbeat = absl::Seconds(2);
    int max_attempts = 3;
    absl::Duration retry = absl::Seconds(5);  // see RetryAfter (transitions.h)
    int withheld_budget = 5;                  // see tenant_standing.h
  };

  // All must outlive the result. Failures of the store.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Create(
      JobStore& store, IdSource& ids, ChangeListener& listener, const ServingVectors& serving,
      const Quotas& quotas, const Options& options, absl::Time now);

  // Ends the leases that are due: their work waits again, or fails for good. Call it now and then.
  absl::Status Enter(absl::Time now);

  // One exchange with a worker, answered at once; holding an idle worker's call is up to the
  // caller. A Busy with a stale lease is answered with stop. A repeated Finished is answered like
  // the first. INVALID_ARGUMENT (WORKER_ID_INVALID, RESULT_INVALID), FAILED_PRECONDITION
  // (LEASE_LOST). Results must have been checked against the blob store by the caller.
  absl::StatusOr<worker::v1::SynchronizeResponse> Synchronize(
      absl::Time now, const worker::v1::SynchronizeRequest& request);

  // OK when the worker holds the lease and its work needs `blob`. FAILED_PRECONDITION (LEASE_LOST),
  // PERMISSION_DENIED (BLOB_NOT_IN_LEASE).
  absl::Status CheckReadable(absl::Time now, const std::string& worker_id,
                             const worker::v1::Lease& lease, const std::string& blob);

  // Digest of the base model of a lease's work. FAILED_PRECONDITION (LEASE_LOST).
  absl::StatusOr<std::string> BaseDigestOf(const std::string& worker_id,
                                           const worker::v1::Lease& lease);

  // Name of the blob that `first`, the first message of a write, is about. FAILED_PRECONDITION
  // (LEASE_LOST), INVALID_ARGUMENT (BLOB_KIND_INVALID).
  absl::StatusOr<std::string> BlobToWrite(absl::Time now,
                                          const worker::v1::WriteBlobRequest& first);

  // Runs `commit` while the lease is certain to hold, and remembers a checkpoint that it has
  // written. `first` and `blob` as in BlobToWrite. FAILED_PRECONDITION (LEASE_LOST): `commit` has
  // not run. Meanwhile the lease does not end, however long it takes, and its worker's word that it
  // has finished waits.
  absl::Status CommitBlob(absl::Time now, const worker::v1::WriteBlobRequest& first,
                          const std::string& blob, const std::function<absl::Status()>& commit);

  // Returns once no CommitBlob of this worker's runs.
  void WaitForCommits(const std::string& worker_id);

  // Blobs of the files of a result, in its order; the caller checks size and digest. Renews the
  // lease.
  absl::StatusOr<std::vector<BlobFile>> ResultBlobs(absl::Time now,
                                                    const worker::v1::SynchronizeRequest& request);

  // Progress of a leased job or vector that is newer than the store's; empty without a lease. Under
  // VECTOR_POLICY_BY_ROW that of the newest evaluation, with the time left in whole minutes (S2).
  std::optional<v1::JobProgress> LiveProgress(const std::string& resource);

  // Workers seen in the hour before `now`, by name.
  std::vector<admin::v1::WorkerInfo> ListWorkers(absl::Time now);

  int64_t LeasesLost() const;

 private:
  struct Notices;

  ControlPlane(JobStore& store, IdSource& ids, ChangeListener& listener,
               const ServingVectors& serving, const Quotas& quotas, const Options& options)
      : store_(store),
        ids_(ids),
        listener_(listener),
        serving_(serving),
        quotas_(quotas),
        options_(options) {}

  // Takes leases over that the store has and memory has not.
  absl::Status RestoreLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<worker::v1::Work> LeasedWorkLocked(const std::string& worker_id,
                                                    const worker::v1::Lease& lease)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const Notices& notices);
  absl::Status EnterLocked(absl::Time now, Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ExpireLocked(absl::Time now, const std::string& resource, const LiveLease& lease,
                            Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<worker::v1::SynchronizeResponse> SynchronizeLocked(
      absl::Time now, const worker::v1::SynchronizeRequest& request, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status HeartbeatLocked(absl::Time now, const worker::v1::SynchronizeRequest& request,
                               worker::v1::SynchronizeResponse& response, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinishLocked(absl::Time now, const worker::v1::SynchronizeRequest& request,
                            Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status HandOutLocked(absl::Time now, const std::string& worker_id,
                             worker::v1::SynchronizeResponse& response, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  JobStore& store_;
  IdSource& ids_;
  ChangeListener& listener_;
  const ServingVectors& serving_;
  const Quotas& quotas_;
  const Options options_;

  mutable absl::Mutex mutex_;
  void WaitForCommitsLocked(const std::string& worker_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  LeaseTable leases_ ABSL_GUARDED_BY(mutex_);
  QueueFront front_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> committing_ ABSL_GUARDED_BY(mutex_);  // resource -> blobs just now
  // Whether the store may have leases that memory has not.
  bool doubtful_ ABSL_GUARDED_BY(mutex_) = true;
  std::map<std::string, admin::v1::WorkerInfo> workers_ ABSL_GUARDED_BY(mutex_);
  // When work that waits after an error is to be tried again.
  std::set<absl::Time> retries_ ABSL_GUARDED_BY(mutex_);
  int64_t leases_lost_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_CONTROL_PLANE_H_
