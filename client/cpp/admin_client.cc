// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/admin_client.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/base_model.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

constexpr size_t kChunkBytes = 512 << 10;
constexpr int kPageSize = 100;

}  // namespace

AdminClient::AdminClient(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)),
      stub_(admin::v1::AdminService::NewStub(connection_->channel())) {}

absl::StatusOr<std::vector<std::string>> AdminClient::ModelFiles(const std::string& folder) {
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) {
    return MakeError(absl::StatusCode::kNotFound, "FOLDER_NOT_FOUND",
                     absl::StrCat("cannot read the folder ", folder, ": ", error.message(),
                                  "; give the Hugging Face folder of a model"),
                     {{"path", folder}});
  }
  std::vector<std::string> files;
  for (; entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    if (error) break;
    if (!entries->is_regular_file(error)) continue;  // follows links, as model caches use them
    std::string name = entries->path().filename().string();
    if (artifact::CheckBaseModelFileName(name).ok()) files.push_back(std::move(name));
  }
  if (error) return FileError(error.value(), "read", folder);
  if (files.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FOLDER_EMPTY",
                     absl::StrCat(folder,
                                  " has no config.json, tokenizer.json or *.safetensors; "
                                  "give the Hugging Face folder of a model"),
                     {{"path", folder}});
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<v1::BaseModel> AdminClient::ImportBaseModel(
    const admin::v1::ImportBaseModelRequest::ImportOptions& options, const std::string& folder,
    const TransferProgress& progress) const {
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> files, ModelFiles(folder));
  int64_t total_bytes = 0;
  for (const std::string& file : files) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(folder + "/" + file));
    total_bytes += bytes;
  }
  for (int attempt = 1;; ++attempt) {
    auto model = ImportOnce(options, folder, files, total_bytes, progress);
    // FILE_IO is UNAVAILABLE too, but of a file on this side.
    if (model.ok() || model.status().code() != absl::StatusCode::kUnavailable ||
        ErrorReason(model.status()) == "FILE_IO" ||
        attempt >= connection_->options().retry.max_attempts) {
      return model;
    }
    connection_->Sleep(connection_->options().retry.Backoff(attempt, model.status()));
  }
}

absl::StatusOr<v1::BaseModel> AdminClient::ImportOnce(
    const admin::v1::ImportBaseModelRequest::ImportOptions& options, const std::string& folder,
    const std::vector<std::string>& files, int64_t total_bytes,
    const TransferProgress& progress) const {
  grpc::ClientContext context;
  connection_->Prepare(context, connection_->options().stream_deadline);
  v1::BaseModel model;
  auto writer = stub_->ImportBaseModel(&context, &model);
  admin::v1::ImportBaseModelRequest request;
  *request.mutable_options() = options;
  bool open = writer->Write(request);
  int64_t done = 0;
  absl::Status local = absl::OkStatus();
  for (const std::string& file : files) {
    if (!open) break;
    const std::string path = folder + "/" + file;
    const absl::StatusOr<int64_t> size = FileSize(path);
    local = size.status();
    if (!local.ok()) break;
    request.mutable_file_start()->set_file_name(file);
    request.mutable_file_start()->set_size_bytes(*size);
    open = writer->Write(request);
    local = ForEachChunk(path, kChunkBytes, [&](std::string_view bytes) {
      request.set_data(std::string(bytes));
      open = open && writer->Write(request);
      done += static_cast<int64_t>(bytes.size());
      if (progress) progress(std::min(done, total_bytes), total_bytes);
      return open;
    });
    if (!local.ok()) break;
  }
  if (!local.ok()) {
    context.TryCancel();
    writer->Finish();
    return local;
  }
  writer->WritesDone();
  BALLAST_RETURN_IF_ERROR(connection_->Convert(writer->Finish()));
  return model;
}

absl::StatusOr<admin::v1::Vector> AdminClient::TrainVector(const admin::v1::VectorOptions& options,
                                                           const std::string& prohibited_path,
                                                           const std::string& benign_path,
                                                           const TransferProgress& progress) const {
  return SendVectorData(options,
                        {{prohibited_path, &admin::v1::TrainVectorRequest::mutable_prohibited_data},
                         {benign_path, &admin::v1::TrainVectorRequest::mutable_benign_data}},
                        progress);
}

absl::StatusOr<admin::v1::Vector> AdminClient::TrainVectorOnTopics(
    const admin::v1::VectorOptions& options, const std::string& topics_path,
    const TransferProgress& progress) const {
  return SendVectorData(
      options, {{topics_path, &admin::v1::TrainVectorRequest::mutable_topics_data}}, progress);
}

absl::StatusOr<admin::v1::Vector> AdminClient::SendVectorData(
    const admin::v1::VectorOptions& options, const std::vector<VectorFile>& files,
    const TransferProgress& progress) const {
  int64_t total_bytes = 0;
  for (const VectorFile& file : files) {
    BALLAST_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(file.path));
    total_bytes += bytes;
  }
  grpc::ClientContext context;
  connection_->Prepare(context, connection_->options().stream_deadline);
  admin::v1::Vector vector;
  auto writer = stub_->TrainVector(&context, &vector);
  admin::v1::TrainVectorRequest request;
  *request.mutable_options() = options;
  bool open = writer->Write(request);
  int64_t done = 0;
  absl::Status local;
  for (const VectorFile& file : files) {
    if (!local.ok() || !open) break;
    local = ForEachChunk(file.path, kChunkBytes, [&](std::string_view bytes) {
      *(request.*file.part)() = std::string(bytes);
      open = open && writer->Write(request);
      done += static_cast<int64_t>(bytes.size());
      if (progress) progress(std::min(done, total_bytes), total_bytes);
      return open;
    });
  }
  if (!local.ok()) {
    context.TryCancel();
    writer->Finish();
    return local;
  }
  writer->WritesDone();
  BALLAST_RETURN_IF_ERROR(connection_->Convert(writer->Finish()));
  return vector;
}

std::string AdminClient::VectorName(std::string_view id) {
  if (id.find('/') != std::string_view::npos) return std::string(id);
  return "vectors/" + std::string(id);
}

absl::StatusOr<admin::v1::Vector> AdminClient::GetVector(std::string_view name) const {
  admin::v1::GetVectorRequest request;
  request.set_name(VectorName(name));
  admin::v1::Vector vector;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetVector(context, request, &vector);
  }));
  return vector;
}

PagedRange<admin::v1::Vector> AdminClient::ListVectors() const {
  using Range = PagedRange<admin::v1::Vector>;
  return Range([connection = connection_,
                stub = stub_](const std::string& token) -> absl::StatusOr<Range::Page> {
    admin::v1::ListVectorsRequest request;
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    admin::v1::ListVectorsResponse response;
    BALLAST_RETURN_IF_ERROR(connection->Call(true, [&](grpc::ClientContext* context) {
      return stub->ListVectors(context, request, &response);
    }));
    return Range::Page{{response.vectors().begin(), response.vectors().end()},
                       response.next_page_token()};
  });
}

absl::StatusOr<admin::v1::SignedCertificate> AdminClient::CertifyVector(
    std::string_view name, const admin::v1::SuiteResult& result, bool validate_only) const {
  admin::v1::CertifyVectorRequest request;
  request.set_name(VectorName(name));
  *request.mutable_result() = result;
  request.set_validate_only(validate_only);
  admin::v1::SignedCertificate certificate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(validate_only, [&](grpc::ClientContext* context) {
    return stub_->CertifyVector(context, request, &certificate);
  }));
  return certificate;
}

absl::StatusOr<admin::v1::Vector> AdminClient::ActivateVector(std::string_view name,
                                                              const std::string& reason) const {
  admin::v1::ActivateVectorRequest request;
  request.set_name(VectorName(name));
  request.set_reason(reason);
  admin::v1::Vector vector;
  BALLAST_RETURN_IF_ERROR(connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->ActivateVector(context, request, &vector);
  }));
  return vector;
}

absl::StatusOr<admin::v1::SignedCertificate> AdminClient::GetVectorCertificate(
    std::string_view name) const {
  admin::v1::GetVectorCertificateRequest request;
  request.set_name(VectorName(name));
  admin::v1::SignedCertificate certificate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetVectorCertificate(context, request, &certificate);
  }));
  return certificate;
}

absl::StatusOr<admin::v1::Vector> AdminClient::RetireVector(std::string_view name) const {
  admin::v1::RetireVectorRequest request;
  request.set_name(VectorName(name));
  admin::v1::Vector vector;
  BALLAST_RETURN_IF_ERROR(connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->RetireVector(context, request, &vector);
  }));
  return vector;
}

absl::StatusOr<admin::v1::JobProtection> AdminClient::GetJobProtection(
    const std::string& name) const {
  admin::v1::GetJobProtectionRequest request;
  request.set_name(name);
  admin::v1::JobProtection protection;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetJobProtection(context, request, &protection);
  }));
  return protection;
}

absl::StatusOr<std::vector<admin::v1::WorkerInfo>> AdminClient::ListWorkers() const {
  admin::v1::ListWorkersResponse response;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->ListWorkers(context, admin::v1::ListWorkersRequest(), &response);
  }));
  return std::vector<admin::v1::WorkerInfo>(response.workers().begin(), response.workers().end());
}

}  // namespace ballast::client
