// SPDX-License-Identifier: Apache-2.0
#include "server/api/dataset_upload.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/upload_checks.h"

namespace ballast::server {
namespace {

// Bytes between two syncs: bounds what an interrupted upload has to send again after a power cut.
constexpr int64_t kSyncBytes = int64_t{16} << 20;
// Bytes between two looks at the tenant's quota.
constexpr int64_t kQuotaBytes = int64_t{64} << 20;

absl::Status OffsetMismatch(int64_t asked, int64_t committed) {
  return MakeError(absl::StatusCode::kOutOfRange, "WRITE_OFFSET_MISMATCH",
                   absl::StrCat("write_offset is ", asked, ", but ", committed,
                                " bytes are stored; go on from there"),
                   {{"committed_bytes", absl::StrCat(committed)}});
}

}  // namespace

void DatasetUpload::ReleaseUpload() {
  // What a store refuses is not sent again.
  if (appender_ != nullptr && unsynced_bytes_ > 0 && !sync_failed_) {
    const absl::Status status = Sync();
    if (!status.ok())
      spdlog::warn("an interrupted upload could not be synced: {}", ErrorReason(status));
  }
  appender_.reset();
  if (begun_ && !datasets_.EndUpload(parsed_).ok()) uploads_.Leave(parsed_);
  begun_ = false;
  if (!name_.empty()) uploads_.End(name_);
  name_.clear();
}

absl::StatusOr<bool> DatasetUpload::OnMessage(v1::WriteDatasetRequest& request) {
  if (appender_ == nullptr) BALLAST_RETURN_IF_ERROR(Open(request));
  BALLAST_RETURN_IF_ERROR(Write(request));
  if (!request.finish()) return false;
  BALLAST_RETURN_IF_ERROR(FinishUpload(request.digest()));
  return true;
}

absl::Status DatasetUpload::OnEnd() {
  if (appender_ == nullptr) {
    return MakeError(absl::StatusCode::kInvalidArgument, "STREAM_EMPTY",
                     "the upload has no message; the first one names the data set");
  }
  BALLAST_RETURN_IF_ERROR(Sync());
  response_->set_committed_bytes(appender_->size_bytes());
  return absl::OkStatus();
}

absl::Status DatasetUpload::Open(const v1::WriteDatasetRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(parsed_, ParseDatasetName(request.name(), "name"));
  BALLAST_RETURN_IF_ERROR(datasets_.GetRecordOf(who_.tenant, parsed_).status());
  if (!uploads_.Begin(request.name())) return UploadInProgress(request.name());
  name_ = request.name();
  // Looked at again: an upload that has just finished elsewhere must not be appended to.
  begun_ = true;  // perhaps
  BALLAST_ASSIGN_OR_RETURN(const DatasetRecord fresh, datasets_.BeginUpload(who_.tenant, parsed_));
  blob_ = fresh.blob();
  auto appender = blobs_.OpenAppend(blob_);
  if (absl::IsDataLoss(appender.status())) {
    // What is left of a deletion that was cut off. Nobody else writes to it now.
    BALLAST_RETURN_IF_ERROR(blobs_.DeletePrefix(blob_));
    appender = blobs_.OpenAppend(blob_);
  }
  BALLAST_ASSIGN_OR_RETURN(appender_, std::move(appender));
  return absl::OkStatus();
}

absl::Status DatasetUpload::Write(const v1::WriteDatasetRequest& request) {
  if (!request.name().empty() && request.name() != name_) {
    return FieldError("name", "NAME_CHANGED", "name must be the same in every message");
  }
  if (request.data().size() > kMaxChunkBytes) {
    return FieldError("data", "CHUNK_TOO_LARGE",
                      absl::StrCat("data has ", request.data().size(), " bytes; send at most ",
                                   kMaxChunkBytes, " in a message"));
  }
  const int64_t committed = appender_->size_bytes();
  if (request.write_offset() != committed) return OffsetMismatch(request.write_offset(), committed);
  const auto size = static_cast<int64_t>(request.data().size());
  // Asked now and then only, and for good at the end.
  if (committed + size > checked_until_) {
    BALLAST_RETURN_IF_ERROR(datasets_.CheckRoom(call().Now(), who_.tenant, committed + size,
                                                BytesIn(blobs_), parsed_.id));
    checked_until_ = committed + size + kQuotaBytes;
  }
  if (committed + size > max_bytes_) {
    return FileTooLarge("data", max_bytes_);
  }
  const absl::Status appended = appender_->Append(request.data());
  sync_failed_ = !appended.ok();
  BALLAST_RETURN_IF_ERROR(appended);
  PassKillPoint("server.upload.received");
  call().api().metrics.CountUploadedBytes(size);
  unsynced_bytes_ += size;
  if (unsynced_bytes_ >= kSyncBytes) BALLAST_RETURN_IF_ERROR(Sync());
  return absl::OkStatus();
}

absl::Status DatasetUpload::Sync() {
  absl::Status status = datasets_.CheckUpload(parsed_);
  if (status.ok()) status = appender_->Sync();
  sync_failed_ = !status.ok();
  if (status.ok()) unsynced_bytes_ = 0;
  return status;
}

absl::Status DatasetUpload::FinishUpload(const std::string& digest) {
  BALLAST_RETURN_IF_ERROR(CheckDigestOfFile(digest));
  BALLAST_RETURN_IF_ERROR(Sync());
  BALLAST_ASSIGN_OR_RETURN(const std::string actual, appender_->Digest());
  if (actual != digest) {
    const int64_t size = appender_->size_bytes();
    appender_.reset();
    BALLAST_RETURN_IF_ERROR(blobs_.DeletePrefix(blob_));
    return MakeError(
        absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
        absl::StrCat("the ", size, " bytes received have the digest ", actual, ", not ", digest,
                     "; nothing was kept, upload the file again from 0"),
        {{"digest", actual}});
  }
  PassKillPoint("server.upload.written");
  BALLAST_ASSIGN_OR_RETURN(
      *response_->mutable_dataset(),
      datasets_.FinishUpload(who_.tenant, parsed_, appender_->size_bytes(), digest));
  begun_ = false;
  response_->set_committed_bytes(appender_->size_bytes());
  return absl::OkStatus();
}

}  // namespace ballast::server
