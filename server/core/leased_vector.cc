// SPDX-License-Identifier: Apache-2.0
#include "server/core/leased_vector.h"

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "server/core/records.h"
#include "server/core/transitions.h"
#include "server/core/work_of.h"

namespace ballast::server {

using worker::v1::SynchronizeRequest;

absl::StatusOr<worker::v1::Work> LeasedVector::ToWork() { return WorkOf(tx_, record_); }

bool LeasedVector::HasNews(const SynchronizeRequest::Busy&) const { return false; }

absl::Status LeasedVector::TakeProgress(const SynchronizeRequest::Busy&, absl::Time) {
  return absl::OkStatus();
}

absl::Status LeasedVector::TakeCheckpoint(const std::string&, int64_t) {
  return MakeError(absl::StatusCode::kInternal, "CHECKPOINT_OF_VECTOR", "a vector has none");
}

std::string LeasedVector::SealedBlob() const {
  return absl::StrCat(VectorBlobs(record_.id()), "/attempts/", record_.lease().epoch(), "/sealed");
}

absl::StatusOr<std::string> LeasedVector::BlobOfWrite(
    const worker::v1::WriteBlobRequest& first) const {
  if (first.kind_case() != worker::v1::WriteBlobRequest::kSealedVector) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BLOB_KIND_INVALID",
                     "the training of a vector writes the sealed vector and nothing else");
  }
  return SealedBlob();
}

absl::StatusOr<std::vector<BlobFile>> LeasedVector::ResultFiles(
    const SynchronizeRequest::Finished& finished) const {
  if (!finished.has_vector()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID",
                     "a vector's training has no delta");
  }
  if (!IsDigest(finished.vector().ciphertext_digest())) {
    return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID",
                     "ciphertext_digest is no digest");
  }
  BlobFile file;
  file.set_path("sealed");
  file.set_blob(SealedBlob());
  file.set_size_bytes(-1);
  file.set_digest(finished.vector().ciphertext_digest());
  return std::vector<BlobFile>{file};
}

absl::StatusOr<WorkEvent> LeasedVector::TakeResult(const SynchronizeRequest::Finished& finished,
                                                   const std::vector<BlobFile>& files,
                                                   const LiveLease&, int, absl::Time) {
  record_.mutable_vector()->set_ciphertext_digest(finished.vector().ciphertext_digest());
  *record_.mutable_vector()->mutable_report() = finished.vector().report();
  record_.set_sealed_blob(files[0].blob());
  return WorkEvent::kResult;
}

absl::Status LeasedVector::Store() { return ReplaceRecord(tx_, record_); }

absl::Status LeasedVector::Move(WorkEvent event, const v1::JobError& error, absl::Time now) {
  return MoveVector(tx_, record_, event, error, now);
}

}  // namespace ballast::server
