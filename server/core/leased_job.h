// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_LEASED_JOB_H_
#define BALLAST_SERVER_CORE_LEASED_JOB_H_

#include <string>
#include <utility>
#include <vector>

#include "server/core/leased_work.h"

namespace ballast::server {

// A fine-tuning job.
class LeasedJob : public LeasedWork {
 public:
  // `tx` must outlive the result.
  LeasedJob(Transaction& tx, JobRecord record) : tx_(tx), record_(std::move(record)) {}

  LeaseRecord& lease() override { return *record_.mutable_lease(); }
  Wish OwnersWish() const override;
  absl::StatusOr<bool> IsCoarse() override;
  absl::StatusOr<worker::v1::Work> ToWork() override;
  bool HasNews(const worker::v1::SynchronizeRequest::Busy& busy) const override;
  absl::Status TakeProgress(const worker::v1::SynchronizeRequest::Busy& busy,
                            absl::Time now) override;
  absl::Status TakeCheckpoint(const std::string& blob, int64_t step) override;
  bool NamesBlob(const std::string& blob) const override;
  absl::StatusOr<std::string> BlobOfWrite(const worker::v1::WriteBlobRequest& first) const override;
  absl::StatusOr<WorkEvent> TakeResult(const worker::v1::SynchronizeRequest::Finished& finished,
                                       const std::vector<BlobFile>& files, const LiveLease& live,
                                       int withheld_budget, absl::Time now) override;
  absl::Status Store() override;
  absl::Status Move(WorkEvent event, const v1::JobError& error, absl::Time now) override;

 protected:
  absl::StatusOr<std::vector<BlobFile>> ResultFiles(
      const worker::v1::SynchronizeRequest::Finished& finished) const override;

 private:
  // That the rows were screened, and will be trained on.
  bool IsScreened(const worker::v1::SynchronizeRequest::Busy& busy) const;
  // The result of a screening that the job does not have yet.
  bool IsNewScreening(const worker::v1::SynchronizeRequest::Busy& busy) const;
  absl::StatusOr<std::optional<BaseModelRecord>> Base(Hold hold);
  absl::Status LearnSpeed(const LiveLease& live, absl::Time now);

  Transaction& tx_;
  JobRecord record_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_LEASED_JOB_H_
