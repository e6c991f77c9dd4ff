// SPDX-License-Identifier: Apache-2.0
#include "server/api/direct_upload.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/dataset_service.h"
#include "server/api/upload_checks.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;

int64_t PartCount(const DirectUploadRecord& upload) {
  return (upload.size_bytes() + upload.part_bytes() - 1) / upload.part_bytes();
}

int64_t PartSize(const DirectUploadRecord& upload, int64_t part) {
  return std::min(upload.part_bytes(), upload.size_bytes() - part * upload.part_bytes());
}

absl::Status PartError(const char* reason, int64_t part, const std::string& what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason,
                   absl::StrCat("part ", part, " ", what, "; write it and finish again"),
                   {{"part", absl::StrCat(part)}});
}

absl::Status DigestMismatch(const std::string& actual, const std::string& expected) {
  return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                   absl::StrCat("the parts together have the digest ", actual, ", not ", expected,
                                "; nothing was kept, upload the file again"),
                   {{"digest", actual}});
}

}  // namespace

absl::Status DirectUploads::CheckSize(int64_t size_bytes) const {
  if (size_bytes < 1) {
    return FieldError("size_bytes", "SIZE_INVALID",
                      "size_bytes must be at least 1; send an empty file by WriteDataset");
  }
  if (size_bytes > parts_.max_bytes) {
    return FileTooLarge("size_bytes", parts_.max_bytes);
  }
  return absl::OkStatus();
}

absl::Status DirectUploads::CheckRuns() const {
  if (!draining_) return absl::OkStatus();
  return WithRetry(MakeError(absl::StatusCode::kUnavailable, "SERVER_STOPPING",
                             "the server is stopping; finish the upload again"),
                   absl::Seconds(1));
}

absl::StatusOr<v1::DirectUpload> DirectUploads::Start(absl::Time now, const std::string& tenant,
                                                      const v1::StartDirectUploadRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDatasetName(request.name(), "name"));
  BALLAST_RETURN_IF_ERROR(CheckSize(request.size_bytes()));
  BALLAST_ASSIGN_OR_RETURN(const DatasetRecord record, parts_.datasets.GetRecordOf(tenant, name));
  // Asked before anything is written down: a store without links has nothing to begin.
  BALLAST_ASSIGN_OR_RETURN(const BlobWriteLink probe, parts_.blobs.WriteLink(record.blob()));
  if (!parts_.uploads.Begin(request.name())) return UploadInProgress(request.name());
  const absl::Cleanup end = [&] { parts_.uploads.End(request.name()); };
  BALLAST_RETURN_IF_ERROR(
      parts_.datasets.CheckRoom(now, tenant, request.size_bytes(), BytesIn(parts_.blobs), name.id));
  BALLAST_ASSIGN_OR_RETURN(
      const DirectUploadRecord upload,
      parts_.datasets.StartDirectUpload(now, probe.valid, tenant, name, request.size_bytes(),
                                        parts_.part_bytes));
  BALLAST_ASSIGN_OR_RETURN(const auto stored, parts_.blobs.WrittenByLinks(upload.incoming()));
  v1::DirectUpload answer;
  for (int64_t part = 0; part < PartCount(upload); ++part) {
    BALLAST_ASSIGN_OR_RETURN(const BlobWriteLink link,
                             parts_.blobs.WriteLink(absl::StrCat(upload.incoming(), "/", part)));
    *answer.mutable_expire_time() = ToTimestamp(now + link.valid);
    v1::UploadPart& out = *answer.add_parts();
    out.set_offset(part * upload.part_bytes());
    out.set_size_bytes(PartSize(upload, part));
    out.set_url(link.url);
    out.mutable_headers()->insert(link.headers.begin(), link.headers.end());
    const auto found = stored.find(absl::StrCat(part));
    out.set_stored(found != stored.end() && found->second == out.size_bytes());
  }
  return answer;
}

absl::StatusOr<std::vector<std::string>> DirectUploads::PartsThere(
    const DirectUploadRecord& upload) {
  BALLAST_ASSIGN_OR_RETURN(const auto stored, parts_.blobs.WrittenByLinks(upload.incoming()));
  std::vector<std::string> names;
  for (int64_t part = 0; part < PartCount(upload); ++part) {
    const auto found = stored.find(absl::StrCat(part));
    if (found == stored.end()) return PartError("UPLOAD_PART_MISSING", part, "is not there");
    if (found->second != PartSize(upload, part)) {
      return PartError("UPLOAD_PART_SIZE", part,
                       absl::StrCat("has ", found->second, " bytes, not ", PartSize(upload, part)));
    }
    names.push_back(absl::StrCat(upload.incoming(), "/", part));
  }
  return names;
}

absl::StatusOr<std::string> DirectUploads::DigestOfBlob(const std::string& blob,
                                                        int64_t size_bytes) {
  BALLAST_ASSIGN_OR_RETURN(const auto reader, parts_.blobs.Open(blob));
  // A part was replaced by one of another size just now.
  if (reader->size_bytes() != size_bytes) return std::string("of another size");
  Sha256 sha;
  for (int64_t offset = 0; offset < size_bytes;) {
    BALLAST_RETURN_IF_ERROR(CheckRuns());
    BALLAST_ASSIGN_OR_RETURN(const std::string bytes, reader->Read(offset, kReadBytes));
    sha.Update(bytes);
    offset += static_cast<int64_t>(bytes.size());
  }
  return sha.Finish();
}

absl::StatusOr<v1::Dataset> DirectUploads::CopyAndCheck(const std::string& tenant,
                                                        const TenantName& name,
                                                        const std::string& digest) {
  const std::string blob = parts_.datasets.NewBlobOf(name);
  const UnnamedBlobs::Hold hold(parts_.unnamed, blob);
  BALLAST_ASSIGN_OR_RETURN(const DirectUploadRecord upload,
                           parts_.datasets.BeginFinish(tenant, name, blob));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> names, PartsThere(upload));
  BALLAST_RETURN_IF_ERROR(parts_.blobs.CopyWritten(blob, names, [this] { return CheckRuns(); }));
  BALLAST_ASSIGN_OR_RETURN(const std::string actual, DigestOfBlob(blob, upload.size_bytes()));
  if (actual != digest) {
    BALLAST_RETURN_IF_ERROR(parts_.datasets.GiveUpDirectUpload(name, upload.incoming()));
    return DigestMismatch(actual, digest);
  }
  return parts_.datasets.FinishUpload(tenant, name, upload.size_bytes(), digest, blob);
}

absl::StatusOr<v1::Dataset> DirectUploads::Finish(const std::string& tenant,
                                                  const v1::FinishDirectUploadRequest& request) {
  // Many may have waited for those before them.
  BALLAST_RETURN_IF_ERROR(CheckRuns());
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDatasetName(request.name(), "name"));
  BALLAST_RETURN_IF_ERROR(parts_.datasets.GetRecordOf(tenant, name).status());
  BALLAST_RETURN_IF_ERROR(CheckDigestOfFile(request.digest()));
  if (!parts_.uploads.Begin(request.name())) return UploadInProgress(request.name());
  const absl::Cleanup end = [&] { parts_.uploads.End(request.name()); };
  auto dataset = CopyAndCheck(tenant, name, request.digest());
  if (!dataset.ok() && !parts_.datasets.EndUpload(name).ok()) parts_.uploads.Leave(name);
  return dataset;
}

}  // namespace ballast::server
