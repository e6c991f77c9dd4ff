// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_CONTROL_PLANE_H_
#define BALLAST_SERVER_CORE_CONTROL_PLANE_H_

#include <deque>
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
#include "server/core/worker_sign.h"

namespace ballast::server {

// Gives work to workers and takes its results. Every entry takes the time as an argument: it first
// ends the leases that are due, then acts. It has no clock, no thread and no files.
//
// Fencing (R1): epochs and who holds them are in the store; until when, and how far the work is, is
// kept in memory. A new ControlPlane on the same store gives every lease that it finds a full term.
// Several may share a store, and a worker may turn to any of them at any time: see worker_sign.h.
// Thread safety: thread-safe. The listener is called without locks held.
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

  // Ends the leases that are due: their work waits again, or fails for good. Call it several times
  // a second.
  absl::Status Enter(absl::Time now);

  // One exchange with a worker, answered at once; holding an idle worker's call is up to the
  // caller. A Busy with a stale lease is answered with stop. A repeated Finished is answered like
  // the first. INVALID_ARGUMENT (WORKER_ID_INVALID, RESULT_INVALID), FAILED_PRECONDITION
  // (LEASE_LOST). Results must have been checked against the blob store by the caller.
  absl::StatusOr<worker::v1::SynchronizeResponse> Synchronize(
      absl::Time now, const worker::v1::SynchronizeRequest& request);

  // Workers that get work in one transaction, at most.
  static constexpr size_t kMostAtOnce = 16;

  // The same for calls of idle workers that were held, at most kMostAtOnce and each of another
  // worker: those that get new work get it in one transaction. Answers in their order. They were
  // made a while ago, so that a worker may have called again since, or have turned to another
  // server: ABORTED (CALL_STALE) where it gets work by another call.
  std::vector<absl::StatusOr<worker::v1::SynchronizeResponse>> SynchronizeHeld(
      absl::Time now, const std::vector<const worker::v1::SynchronizeRequest*>& requests);

  // OK when the worker holds the lease and its work needs `blob`. FAILED_PRECONDITION (LEASE_LOST),
  // PERMISSION_DENIED (BLOB_NOT_IN_LEASE).
  absl::Status CheckReadable(absl::Time now, const std::string& worker_id,
                             const worker::v1::Lease& lease, const std::string& blob);

  // Digest of the base model of a lease's work. FAILED_PRECONDITION (LEASE_LOST).
  absl::StatusOr<std::string> BaseDigestOf(absl::Time now, const std::string& worker_id,
                                           const worker::v1::Lease& lease);

  // Name of the blob that `first`, the first message of a write, is about. FAILED_PRECONDITION
  // (LEASE_LOST), INVALID_ARGUMENT (BLOB_KIND_INVALID).
  absl::StatusOr<std::string> BlobToWrite(absl::Time now,
                                          const worker::v1::WriteBlobRequest& first);

  // Runs `commit` under the lease, and remembers a checkpoint that it has written. `first` and
  // `blob` as in BlobToWrite. Meanwhile this server does not end the lease, however long it takes,
  // and its worker's word that it has finished waits; where another server has ended it, the blob
  // is garbage. FAILED_PRECONDITION (LEASE_LOST).
  absl::Status CommitBlob(absl::Time now, const worker::v1::WriteBlobRequest& first,
                          const std::string& blob, const std::function<absl::Status()>& commit);

  // Returns once no CommitBlob of this worker's runs.
  void WaitForCommits(const std::string& worker_id);

  // Blobs of the files of a result, in its order; the caller checks size and digest, and renews the
  // lease meanwhile.
  absl::StatusOr<std::vector<BlobFile>> ResultBlobs(absl::Time now,
                                                    const worker::v1::SynchronizeRequest& request);

  // Gives a lease that the worker holds a full term.
  absl::Status Renew(absl::Time now, const std::string& worker_id, const worker::v1::Lease& lease);

  // Progress of a leased job or vector that is newer than the record's; empty without a lease.
  // Under VECTOR_POLICY_BY_ROW that of the newest evaluation, with the time left in whole minutes
  // (S2). That of a worker of another server's is a few seconds old.
  std::optional<v1::JobProgress> LiveProgress(const std::string& resource);

  // Workers seen in the hour before `now`, by name.
  std::vector<admin::v1::WorkerInfo> ListWorkers(absl::Time now);

  // Whether any worker was seen of late.
  bool HasWorkers(absl::Time now) const;

  int64_t LeasesLost() const;

 private:
  // What to tell the listener once the lock is released.
  struct Notices {
    std::vector<std::string> changed, moved;
    bool work_added = false;
    bool garbage_added = false;
  };
  static constexpr absl::Duration kMemory = absl::Hours(1);  // of workers
  // Longer than an idle worker's call is held.
  static constexpr absl::Duration kPresent = absl::Minutes(2);

  ControlPlane(JobStore& store, IdSource& ids, ChangeListener& listener,
               const ServingVectors& serving, const Quotas& quotas, const Options& options)
      : store_(store),
        ids_(ids),
        listener_(listener),
        serving_(serving),
        quotas_(quotas),
        options_(options) {}

  // How often signs of life are written, and leases taken over: so that a worker that is alive is
  // never taken for silent.
  absl::Duration BetweenSigns() const { return options_.lease / 6; }
  // Brings memory up to the leases that the store has.
  absl::Status TakeOverLocked(absl::Time now, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The lease, also where another server has given it; null when the worker does not hold it.
  absl::StatusOr<LiveLease*> FindLocked(absl::Time now, const worker::v1::Lease& lease,
                                        const std::string& worker_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives it a full term; whether a sign of life is due with it.
  bool RenewLocked(absl::Time now, LiveLease& lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has a sign of life written of a worker that works under no lease, now and then.
  void ShowIdleLocked(absl::Time now, const std::string& worker_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Writes the signs that are due, in one transaction.
  absl::Status WriteSigns();
  // Forgets workers that were not seen for long.
  absl::Status ForgetLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<worker::v1::Work> LeasedWorkLocked(absl::Time now, const std::string& worker_id,
                                                    const worker::v1::Lease& lease)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const Notices& notices);
  // Enter without the signs.
  absl::Status EndDueLeases(absl::Time now);
  absl::Status EnterLocked(absl::Time now, Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends a lease, whose worker is silent or has said that it has nothing to do. One that was silent
  // here only, by the store, goes on.
  enum class Why { kSilent, kForgotten };
  absl::Status ExpireLocked(absl::Time now, const std::string& resource, Why why, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<worker::v1::SynchronizeResponse> SynchronizeLocked(
      absl::Time now, const worker::v1::SynchronizeRequest& request, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The worker has called now: what is known of it.
  admin::v1::WorkerInfo& SeeLocked(absl::Time now, const worker::v1::SynchronizeRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status HeartbeatLocked(absl::Time now, const worker::v1::SynchronizeRequest& request,
                               worker::v1::SynchronizeResponse& response, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinishLocked(absl::Time now, const worker::v1::SynchronizeRequest& request,
                            Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a worker that has said that it is idle.
  absl::Status FindWorkLocked(absl::Time now, const std::string& worker_id,
                              worker::v1::SynchronizeResponse& response, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a worker that has said so and holds leases: the work that it has not heard of, once more.
  // What it has forgotten ends.
  absl::Status GiveAgainLocked(absl::Time now, const std::string& worker_id,
                               worker::v1::SynchronizeResponse& response, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One of SynchronizeHeld before it asks for new work.
  absl::StatusOr<worker::v1::SynchronizeResponse> MeetHeldLocked(
      absl::Time now, const worker::v1::SynchronizeRequest& request,
      const std::optional<GivenLease>& last, Notices& notices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps the lease that was got at another server, if it is not known here.
  void KeepLastLocked(absl::Time now, const std::string& worker_id,
                      const std::optional<GivenLease>& last) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next thing for each of these workers. Of calls that ask at the same time one gets it for
  // all, in one transaction, without the lock; the others wait.
  using WorkOrNone = absl::StatusOr<std::optional<worker::v1::Work>>;
  std::vector<WorkOrNone> AskForWorkLocked(absl::Time now,
                                           const std::vector<std::string>& worker_ids,
                                           Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HandOutLocked(absl::Time now, Notices& notices) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  JobStore& store_;
  IdSource& ids_;
  ChangeListener& listener_;
  const ServingVectors& serving_;
  const Quotas& quotas_;
  const Options options_;

  mutable absl::Mutex mutex_;
  void WaitForCommitsLocked(const std::string& worker_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  LeaseTable leases_ ABSL_GUARDED_BY(mutex_);
  // A call that asks for work.
  struct Asking {
    const std::string& worker_id;
    std::optional<WorkOrNone> answer;
  };
  std::deque<Asking*> asking_ ABSL_GUARDED_BY(mutex_);
  bool handing_out_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::string> finding_work_ ABSL_GUARDED_BY(mutex_);  // workers
  QueueFront front_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> committing_ ABSL_GUARDED_BY(mutex_);  // resource -> blobs just now
  absl::Time last_take_over_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // When the store may have leases that memory has not.
  absl::Time next_take_over_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time next_forgetting_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  WorkersById workers_ ABSL_GUARDED_BY(mutex_);
  SignsSeen seen_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, absl::Time> next_idle_sign_ ABSL_GUARDED_BY(mutex_);  // by worker
  // Workers of which signs are due, under leases or none.
  std::map<std::string, worker::v1::Lease> signs_due_ ABSL_GUARDED_BY(mutex_);
  // When work that waits after an error is to be tried again.
  std::set<absl::Time> retries_ ABSL_GUARDED_BY(mutex_);
  int64_t leases_lost_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_CONTROL_PLANE_H_
