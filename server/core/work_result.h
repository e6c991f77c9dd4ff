// SPDX-License-Identifier: Apache-2.0
// What workers report and write, turned into names of blobs and changes of records.
#ifndef BALLAST_SERVER_CORE_WORK_RESULT_H_
#define BALLAST_SERVER_CORE_WORK_RESULT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// What a lease is about.
struct Leased {
  bool is_vector = false;
  std::string tenant;  // empty for a vector
  std::string id;
};
// INVALID_ARGUMENT (NAME_INVALID).
absl::StatusOr<Leased> ParseLeased(const std::string& resource);

// Prefix of the blobs that an attempt writes.
std::string AttemptPrefix(const Leased& leased, int64_t epoch);

// Blob that the first message of a WriteBlob is about. INVALID_ARGUMENT (BLOB_KIND_INVALID) for a
// kind that the work does not make or a path that is not relative and plain.
absl::StatusOr<std::string> BlobOfWrite(const worker::v1::WriteBlobRequest& first);

// Files of a result, with their blobs; empty for outcomes without files. INVALID_ARGUMENT
// (RESULT_INVALID) when the outcome does not fit the work, or paths repeat or are not plain, or
// manifest.json is missing or has another digest than the result says. A vector's size is unknown:
// -1.
absl::StatusOr<std::vector<BlobFile>> FilesOfResult(
    const worker::v1::SynchronizeRequest::Finished& finished);

// Whether `busy` has a result of screening that the job does not have yet.
bool IsNewScreening(const JobRecord& record, const worker::v1::SynchronizeRequest::Busy& busy);

// Takes steps, the result of screening and new evaluations over into the job, one event for each
// that was not told yet. True when there was one; the caller stores the record.
absl::StatusOr<bool> RecordProgress(Transaction& tx, JobRecord& record,
                                    const worker::v1::SynchronizeRequest::Busy& busy,
                                    absl::Time now);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_WORK_RESULT_H_
