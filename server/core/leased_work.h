// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_LEASED_WORK_H_
#define BALLAST_SERVER_CORE_LEASED_WORK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/job_state.h"
#include "server/core/job_store.h"
#include "server/core/lease_table.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// What a worker holds a lease on, a job or the training of a vector: loaded in a transaction, and
// valid only inside it. Changes are kept by Store or Move. Thread safety: not thread-safe.
class LeasedWork {
 public:
  virtual ~LeasedWork() = default;

  // Null where there is no such job or vector any more. INVALID_ARGUMENT (NAME_INVALID).
  static absl::StatusOr<std::unique_ptr<LeasedWork>> Load(Transaction& tx,
                                                          const std::string& resource);
  // The same, and null where `worker_id` does not hold `lease` by the record.
  static absl::StatusOr<std::unique_ptr<LeasedWork>> LoadHeld(Transaction& tx,
                                                              const worker::v1::Lease& lease,
                                                              const std::string& worker_id);

  virtual LeaseRecord& lease() = 0;
  bool IsHeld(const worker::v1::Lease& lease, const std::string& worker_id);

  // What the owner has asked for: that it goes on, pauses, or is cancelled.
  enum class Wish { kGoOn, kPause, kCancel };
  virtual Wish OwnersWish() const = 0;
  // Whether its progress is shown at evaluations only (S2).
  virtual absl::StatusOr<bool> IsCoarse() = 0;
  // As it was handed out.
  virtual absl::StatusOr<worker::v1::Work> ToWork() = 0;

  // Whether `busy` says something that events are to tell.
  virtual bool HasNews(const worker::v1::SynchronizeRequest::Busy& busy) const = 0;
  // Takes steps, screening and new evaluations over, one event for each that was not told yet.
  virtual absl::Status TakeProgress(const worker::v1::SynchronizeRequest::Busy& busy,
                                    absl::Time now) = 0;
  // The newest checkpoint is `blob`; the one before it becomes garbage. One that comes late, after
  // a newer one of the same attempt, does at once.
  virtual absl::Status TakeCheckpoint(const std::string& blob, int64_t step) = 0;

  // Blob that the first message of a WriteBlob is about. INVALID_ARGUMENT (BLOB_KIND_INVALID) for a
  // kind that the work does not make or a path that is not relative and plain.
  virtual absl::StatusOr<std::string> BlobOfWrite(
      const worker::v1::WriteBlobRequest& first) const = 0;
  // Whether the record names a blob that an attempt has written.
  virtual bool NamesBlob(const std::string& blob) const = 0;
  // Files of a result, with their blobs; empty for outcomes without files. INVALID_ARGUMENT
  // (RESULT_INVALID) when the outcome does not fit the work, or paths repeat or are not plain, or
  // manifest.json is missing or has another digest than the result says. A vector's size is
  // unknown: -1.
  absl::StatusOr<std::vector<BlobFile>> FilesOfResult(
      const worker::v1::SynchronizeRequest::Finished& finished) const;

  // Takes a result over, whose files are `files`; the caller then moves the work by the event that
  // is returned. `live` is its lease, `withheld_budget` as in tenant_standing.h. INVALID_ARGUMENT
  // (RESULT_INVALID).
  virtual absl::StatusOr<WorkEvent> TakeResult(
      const worker::v1::SynchronizeRequest::Finished& finished, const std::vector<BlobFile>& files,
      const LiveLease& live, int withheld_budget, absl::Time now) = 0;

  virtual absl::Status Store() = 0;
  // As MoveJob and MoveVector (transitions.h).
  virtual absl::Status Move(WorkEvent event, const v1::JobError& error, absl::Time now) = 0;

 protected:
  // FilesOfResult of a delta or a vector.
  virtual absl::StatusOr<std::vector<BlobFile>> ResultFiles(
      const worker::v1::SynchronizeRequest::Finished& finished) const = 0;
};

// FAILED_PRECONDITION (LEASE_LOST).
absl::Status LeaseLost(const worker::v1::Lease& lease);

// As LeasedWork::LoadHeld, and LeaseLost where that is null.
absl::StatusOr<std::unique_ptr<LeasedWork>> HeldBy(Transaction& tx, const worker::v1::Lease& lease,
                                                   const std::string& worker_id);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_LEASED_WORK_H_
