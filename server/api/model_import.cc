// SPDX-License-Identifier: Apache-2.0
#include "server/api/model_import.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/base_model.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/audit.h"
#include "server/core/admission.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::ImportBaseModelRequest;

constexpr size_t kMaxFiles = 500;

absl::Status StreamOrder(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "STREAM_ORDER", what);
}

}  // namespace

ModelImport::ModelImport(const ApiContext& api, grpc::CallbackServerContext* context,
                         const AdminService::Parts& parts, Principal who, v1::BaseModel* response)
    : ClientStream(api, "AdminService/ImportBaseModel", context),
      parts_(parts),
      who_(std::move(who)),
      response_(response) {}

void ModelImport::Clean() {
  const UnnamedBlobs::Hold ended = std::move(hold_);
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

absl::StatusOr<bool> ModelImport::OnMessage(ImportBaseModelRequest& request) {
  switch (request.part_case()) {
    case ImportBaseModelRequest::kOptions:
      BALLAST_RETURN_IF_ERROR(Start(request.options()));
      return false;
    case ImportBaseModelRequest::kFileStart:
      BALLAST_RETURN_IF_ERROR(BeginFile(request.file_start()));
      return false;
    case ImportBaseModelRequest::kData:
      BALLAST_RETURN_IF_ERROR(Append(request.data()));
      return false;
    case ImportBaseModelRequest::PART_NOT_SET:
      break;
  }
  return StreamOrder("a message must have options, file_start or data");
}

absl::Status ModelImport::Start(const ImportBaseModelRequest::ImportOptions& options) {
  if (options_.has_value()) return StreamOrder("options come once, in the first message");
  if (!IsResourceId(options.base_model_id())) {
    return FieldError(
        "options.base_model_id", "BASE_MODEL_ID_INVALID",
        "base_model_id must be 1 to 63 lower-case letters, digits, \"-\" and \".\", not "
        "beginning with \".\"");
  }
  if (!admin::v1::VectorPolicy_IsValid(options.vector_policy())) {
    return FieldError("options.vector_policy", "VECTOR_POLICY_UNKNOWN",
                      "vector_policy must be VECTOR_POLICY_ALWAYS or VECTOR_POLICY_BY_ROW");
  }
  if (options.unprotected()) BALLAST_RETURN_IF_ERROR(parts_.models.CheckUnprotectedAllowed());
  BALLAST_ASSIGN_OR_RETURN(limits_, CompleteLimits(options.limits()));
  options_ = options;
  folder_ = absl::StrCat(parts_.staging_dir, "/import-", parts_.ids.NewId());
  return MakeDirectories(folder_, 0700);
}

absl::Status ModelImport::BeginFile(const ImportBaseModelRequest::FileStart& start) {
  if (!options_.has_value()) return StreamOrder("the first message must have options");
  BALLAST_RETURN_IF_ERROR(EndFile());
  BALLAST_RETURN_IF_ERROR(artifact::CheckBaseModelFileName(start.file_name()));
  const int64_t most = artifact::MaxBaseModelFileBytes(start.file_name());
  if (start.size_bytes() < 0 || start.size_bytes() > most) {
    return FieldError("file_start.size_bytes", "FILE_TOO_LARGE",
                      absl::StrCat(start.file_name(), " may have 0 to ", most, " bytes"));
  }
  if (files_.size() >= kMaxFiles) {
    return FieldError("file_start", "FILE_TOO_LARGE",
                      absl::StrCat("a base model has at most ", kMaxFiles, " files"));
  }
  if (files_.count(start.file_name()) != 0) {
    return FieldError("file_start.file_name", "FILE_REPEATED",
                      absl::StrCat(start.file_name(), " was sent twice"));
  }
  const std::string path = absl::StrCat(folder_, "/", start.file_name());
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0) return FileError(errno, "create", path);
  current_ = start.file_name();
  received_bytes_ = 0;
  sha_.emplace();
  BlobFile& file = files_[current_];
  file.set_path(current_);
  file.set_size_bytes(start.size_bytes());
  return absl::OkStatus();
}

absl::Status ModelImport::Append(const std::string& data) {
  if (fd_ < 0) return StreamOrder("data must follow a file_start");
  if (data.size() > kMaxChunkBytes) {
    return FieldError("data", "CHUNK_TOO_LARGE",
                      absl::StrCat("send at most ", kMaxChunkBytes, " bytes in a message"));
  }
  received_bytes_ += static_cast<int64_t>(data.size());
  if (received_bytes_ > files_[current_].size_bytes()) {
    return FieldError("data", "FILE_SIZE_MISMATCH",
                      absl::StrCat(current_, " has more bytes than its file_start says"));
  }
  std::string_view rest = data;
  while (!rest.empty()) {
    const ssize_t n = write(fd_, rest.data(), rest.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "write", current_);
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  sha_->Update(data);
  return absl::OkStatus();
}

absl::Status ModelImport::EndFile() {
  if (fd_ < 0) return absl::OkStatus();
  BlobFile& file = files_[current_];
  if (received_bytes_ != file.size_bytes()) {
    return FieldError(
        "data", "FILE_SIZE_MISMATCH",
        absl::StrCat(current_, " has ", received_bytes_, " bytes, and its file_start says ",
                     file.size_bytes(), "; send it again"));
  }
  const int code = close(fd_);
  fd_ = -1;
  if (code != 0) return FileError(errno, "write", current_);
  file.set_digest(sha_->Finish());
  return absl::OkStatus();
}

absl::Status ModelImport::OnEnd() {
  if (!options_.has_value()) return StreamOrder("the first message must have options");
  BALLAST_RETURN_IF_ERROR(EndFile());
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord record, Check());
  // The id is looked at before files are moved, and again when the record is added.
  const auto existing = parts_.models.GetRecordOf(record.id());
  const bool here = existing.ok() && existing->model().digest() == record.model().digest();
  if (!here && !existing.ok()) BALLAST_RETURN_IF_ERROR(Store(record));
  BALLAST_ASSIGN_OR_RETURN(*response_, parts_.models.Add(record));
  spdlog::info("imported {} ({} parameters, digest {})", record.model().name(),
               record.model().parameter_count(), record.model().digest());
  if (record.model().unprotected()) {
    spdlog::warn("{} is unprotected: jobs on it run without a vector", record.model().name());
    Audit(who_, "imported as unprotected", record.model().name(), "");
  }
  return absl::OkStatus();
}

absl::StatusOr<BaseModelRecord> ModelImport::Check() {
  BALLAST_ASSIGN_OR_RETURN(const auto facts, artifact::CheckBaseModelFolder(folder_));
  BALLAST_ASSIGN_OR_RETURN(const TextFacts text, parts_.row_checks.Inspect(folder_));
  if (text.vocabulary > facts.config.vocabulary) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZER_INVALID",
                     absl::StrCat("tokenizer.json has ", text.vocabulary,
                                  " tokens, and the model has weights for ",
                                  facts.config.vocabulary, "; the two do not belong together"));
  }
  std::map<std::string, std::string> digests;
  for (const auto& [name, file] : files_) digests[name] = file.digest();

  BaseModelRecord record;
  record.set_id(options_->base_model_id());
  record.set_vector_policy(options_->vector_policy());
  v1::BaseModel& model = *record.mutable_model();
  model.set_name(BaseModelName(record.id()));
  model.set_digest(artifact::BaseModelDigest(digests));
  model.set_unprotected(options_->unprotected());
  model.set_architecture(facts.config.architecture);
  model.set_parameter_count(facts.parameter_count);
  model.set_context_tokens(facts.config.context_tokens);
  model.set_tokenizer_digest(text.tokenizer_digest);
  model.set_template_digest(text.template_digest);
  *model.mutable_limits() = limits_;
  *model.mutable_create_time() = ToTimestamp(call().Now());
  for (const auto& [name, file] : files_) {
    BlobFile& out = *record.add_files();
    out = file;
    out.set_blob(absl::StrCat(BaseModelBlobs(model.digest()), "/", name));
  }
  return record;
}

absl::Status ModelImport::Store(const BaseModelRecord& record) {
  // A crash before the record is there must leave nothing for good.
  hold_ = {parts_.unnamed, BaseModelBlobs(record.model().digest())};
  BALLAST_RETURN_IF_ERROR(parts_.models.Expect(record.model().digest()));
  for (const BlobFile& file : record.files()) {
    BALLAST_RETURN_IF_ERROR(
        parts_.blobs.Adopt(file.blob(), absl::StrCat(folder_, "/", file.path())));
  }
  return absl::OkStatus();
}

}  // namespace ballast::server
