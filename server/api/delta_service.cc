// SPDX-License-Identifier: Apache-2.0
#include "server/api/delta_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/read_links.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

absl::Status Damaged() {
  return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                   "the stored bytes are damaged; tell the operator");
}

}  // namespace

grpc::ServerUnaryReactor* DeltaService::GetDeltaManifest(grpc::CallbackServerContext* context,
                                                         const v1::GetDeltaManifestRequest* request,
                                                         v1::DeltaManifest* response) {
  return Unary(
      api_, "DeltaService/GetDeltaManifest", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<v1::DeltaManifest> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDeltaName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(const JobRecord record, jobs_.GetDelta(who.tenant, name));
        v1::DeltaManifest manifest;
        manifest.set_name(record.job().delta());
        manifest.set_digest(record.job().manifest_digest());
        manifest.set_base_model_digest(record.base_digest());
        manifest.set_training_dataset_digest(record.training_dataset_digest());
        *manifest.mutable_create_time() = record.job().end_time();
        for (const BlobFile& file : record.delta_files()) {
          auto* out = manifest.add_files();
          out->set_path(file.path());
          out->set_size_bytes(file.size_bytes());
          out->set_digest(file.digest());
        }
        std::sort(manifest.mutable_files()->begin(), manifest.mutable_files()->end(),
                  [](const auto& a, const auto& b) { return a.path() < b.path(); });
        return manifest;
      });
}

absl::StatusOr<BlobFile> DeltaService::FindFile(const Principal& who, const std::string& delta,
                                                const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDeltaName(delta, "name"));
  BALLAST_ASSIGN_OR_RETURN(const JobRecord record, jobs_.GetDelta(who.tenant, name));
  const auto file = std::find_if(record.delta_files().begin(), record.delta_files().end(),
                                 [&](const BlobFile& f) { return f.path() == path; });
  if (file != record.delta_files().end()) return *file;
  return MakeError(absl::StatusCode::kNotFound, "DELTA_FILE_NOT_FOUND",
                   "the manifest has no file of this path; read only those that it lists");
}

absl::Status DeltaService::BlobIsMissing(const Principal& who, const std::string& delta) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDeltaName(delta, "name"));
  BALLAST_RETURN_IF_ERROR(jobs_.GetDelta(who.tenant, name).status());
  return Damaged();
}

absl::StatusOr<BlobRange> DeltaService::OpenFile(const Principal& who,
                                                 const v1::ReadDeltaRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const BlobFile file, FindFile(who, request.name(), request.path()));
  if (request.read_offset() < 0 || request.read_offset() > file.size_bytes() ||
      request.read_limit() < 0) {
    return MakeError(
        absl::StatusCode::kOutOfRange, "READ_OFFSET_INVALID",
        absl::StrCat("the file has ", file.size_bytes(),
                     " bytes; read_offset must be from 0 to that, and read_limit not negative"),
        {{"size_bytes", absl::StrCat(file.size_bytes())}});
  }
  BlobRange range;
  auto reader = blobs_.Open(file.blob());
  if (absl::IsNotFound(reader.status())) return BlobIsMissing(who, request.name());
  BALLAST_RETURN_IF_ERROR(reader.status());
  if ((*reader)->size_bytes() != file.size_bytes()) return Damaged();
  range.reader = *std::move(reader);
  range.begin = request.read_offset();
  range.end = file.size_bytes();
  if (request.read_limit() > 0 && request.read_limit() < range.end - range.begin) {
    range.end = range.begin + request.read_limit();
  }
  range.digest = file.digest();
  return range;
}

absl::StatusOr<v1::DeltaLinks> DeltaService::LinksTo(absl::Time now, const Principal& who,
                                                     const v1::GetDeltaLinksRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const BlobFile file, FindFile(who, request.name(), request.path()));
  const auto blob = LinksToRead(blobs_, file.blob());
  if (absl::IsNotFound(blob.status())) return BlobIsMissing(who, request.name());
  BALLAST_RETURN_IF_ERROR(blob.status());
  v1::DeltaLinks answer;
  int64_t size_bytes = 0;
  for (const BlobLink& link : blob->links) {
    v1::DeltaLink& out = *answer.add_links();
    out.set_url(link.url);
    out.set_offset(link.offset);
    out.set_size_bytes(link.size_bytes);
    size_bytes += link.size_bytes;
  }
  if (size_bytes != file.size_bytes()) return Damaged();
  *answer.mutable_expire_time() = ToTimestamp(now + blob->valid);
  answer.set_size_bytes(file.size_bytes());
  answer.set_digest(file.digest());
  api_.metrics.CountLinks(answer.links_size());
  return answer;
}

grpc::ServerUnaryReactor* DeltaService::GetDeltaLinks(grpc::CallbackServerContext* context,
                                                      const v1::GetDeltaLinksRequest* request,
                                                      v1::DeltaLinks* response) {
  return UnaryOn(api_.transfers, api_, "DeltaService/GetDeltaLinks", context, Allowed::kTenant,
                 response, [this, request](const Principal& who, absl::Time now) {
                   return LinksTo(now, who, *request);
                 });
}

grpc::ServerWriteReactor<v1::ReadDeltaResponse>* DeltaService::ReadDelta(
    grpc::CallbackServerContext* context, const v1::ReadDeltaRequest* request) {
  static constexpr char kMethod[] = "DeltaService/ReadDelta";
  auto who = Authorize(api_, *context, Allowed::kTenant);
  if (!who.ok()) {
    return new Refused<grpc::ServerWriteReactor<v1::ReadDeltaResponse>>(
        Call(api_, kMethod).End(who.status()));
  }
  return new BlobStream<v1::ReadDeltaResponse>(
      api_, kMethod, context,
      [this, request, who = *std::move(who)](absl::Time) { return OpenFile(who, *request); });
}

}  // namespace ballast::server
