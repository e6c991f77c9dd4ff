// SPDX-License-Identifier: Apache-2.0
#include "server/api/dataset_service.h"

#include <functional>
#include <memory>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/dataset_upload.h"
#include "server/api/own_tenant.h"
#include "server/core/resource_name.h"

namespace ballast::server {

grpc::ServerUnaryReactor* DatasetService::CreateDataset(grpc::CallbackServerContext* context,
                                                        const v1::CreateDatasetRequest* request,
                                                        v1::Dataset* response) {
  return Unary(
      api_, "DatasetService/CreateDataset", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::Dataset> {
        BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request->parent()));
        return datasets_.Create(now, who.tenant, *request);
      });
}

grpc::ServerUnaryReactor* DatasetService::GetDataset(grpc::CallbackServerContext* context,
                                                     const v1::GetDatasetRequest* request,
                                                     v1::Dataset* response) {
  return Unary(api_, "DatasetService/GetDataset", context, Allowed::kTenant, response,
               [this, request](const Principal& who, absl::Time) -> absl::StatusOr<v1::Dataset> {
                 BALLAST_ASSIGN_OR_RETURN(const auto name,
                                          ParseDatasetName(request->name(), "name"));
                 return datasets_.Get(who.tenant, name);
               });
}

grpc::ServerUnaryReactor* DatasetService::ListDatasets(grpc::CallbackServerContext* context,
                                                       const v1::ListDatasetsRequest* request,
                                                       v1::ListDatasetsResponse* response) {
  return Unary(api_, "DatasetService/ListDatasets", context, Allowed::kTenant, response,
               [this, request](const Principal& who,
                               absl::Time) -> absl::StatusOr<v1::ListDatasetsResponse> {
                 BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request->parent()));
                 return datasets_.List(who.tenant, *request);
               });
}

grpc::ServerUnaryReactor* DatasetService::DeleteDataset(grpc::CallbackServerContext* context,
                                                        const v1::DeleteDatasetRequest* request,
                                                        google::protobuf::Empty* response) {
  return Unary(
      api_, "DatasetService/DeleteDataset", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<google::protobuf::Empty> {
        BALLAST_ASSIGN_OR_RETURN(const auto name, ParseDatasetName(request->name(), "name"));
        // A data set that is being written to is not taken from under the upload.
        BALLAST_RETURN_IF_ERROR(datasets_.GetRecordOf(who.tenant, name).status());
        if (!uploads_.Begin(request->name())) {
          return UploadInProgress(request->name());
        }
        const absl::Status status = datasets_.Delete(who.tenant, name, request->etag());
        uploads_.End(request->name());
        if (!status.ok()) return status;
        return google::protobuf::Empty();
      });
}

void DatasetService::EndLeftUploads() {
  for (const TenantName& left : uploads_.TakeLeft()) {
    const std::string name = DatasetName(left.tenant, left.id);
    // Where another one writes by now, that one ends it.
    if (!uploads_.Begin(name)) continue;
    if (!datasets_.EndUpload(left).ok()) uploads_.Leave(left);
    uploads_.End(name);
  }
}

absl::Status DatasetService::SweepDirectUploads(absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(const auto forgotten, datasets_.SweepDirectUploads(now));
  for (const TenantName& found : forgotten) {
    const std::string name = DatasetName(found.tenant, found.id);
    // A call that is at it has not forgotten it.
    if (!uploads_.Begin(name)) continue;
    const absl::Status given_up = datasets_.GiveUpForgotten(now, found);
    uploads_.End(name);
    BALLAST_RETURN_IF_ERROR(given_up);
  }
  return absl::OkStatus();
}

grpc::ServerReadReactor<v1::WriteDatasetRequest>* DatasetService::WriteDataset(
    grpc::CallbackServerContext* context, v1::WriteDatasetResponse* response) {
  auto who = Authorize(api_, *context, Allowed::kTenant);
  if (!who.ok()) {
    return new Refused<grpc::ServerReadReactor<v1::WriteDatasetRequest>>(
        Call(api_, "DatasetService/WriteDataset").End(who.status()));
  }
  auto* upload = new DatasetUpload(api_, context, *std::move(who), datasets_, blobs_, uploads_,
                                   max_dataset_bytes_, response);
  upload->Begin();
  return upload;
}

grpc::ServerUnaryReactor* DatasetService::GetUploadStatus(grpc::CallbackServerContext* context,
                                                          const v1::GetUploadStatusRequest* request,
                                                          v1::UploadStatus* response) {
  return UnaryOn(
      api_.transfers, api_, "DatasetService/GetUploadStatus", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<v1::UploadStatus> {
        BALLAST_ASSIGN_OR_RETURN(const auto name, ParseDatasetName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(const DatasetRecord record,
                                 datasets_.GetRecordOf(who.tenant, name));
        v1::UploadStatus status;
        if (record.dataset().state() != v1::Dataset::AWAITING_UPLOAD) {
          status.set_committed_bytes(record.dataset().size_bytes());
          status.set_finished(true);
          return status;
        }
        const auto appender = blobs_.OpenAppend(record.blob());
        // Half deleted: the next upload begins anew.
        if (absl::IsDataLoss(appender.status())) return status;
        BALLAST_RETURN_IF_ERROR(appender.status());
        // What is called durable must be: the call that wrote it may have died before its sync.
        BALLAST_RETURN_IF_ERROR((*appender)->Sync());
        status.set_committed_bytes((*appender)->size_bytes());
        return status;
      });
}

grpc::ServerUnaryReactor* DatasetService::StartDirectUpload(
    grpc::CallbackServerContext* context, const v1::StartDirectUploadRequest* request,
    v1::DirectUpload* response) {
  return UnaryOn(
      api_.transfers, api_, "DatasetService/StartDirectUpload", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::DirectUpload> {
        BALLAST_ASSIGN_OR_RETURN(v1::DirectUpload upload,
                                 direct_uploads_.Start(now, who.tenant, *request));
        api_.metrics.CountLinks(upload.parts_size());
        return upload;
      });
}

grpc::ServerUnaryReactor* DatasetService::FinishDirectUpload(
    grpc::CallbackServerContext* context, const v1::FinishDirectUploadRequest* request,
    v1::Dataset* response) {
  const auto run = [this](const Principal& who, std::function<void()> task) {
    finishing_.Run(who.tenant, std::move(task));
  };
  return UnaryBy(run, api_, "DatasetService/FinishDirectUpload", context, Allowed::kTenant,
                 response, [this, request](const Principal& who, absl::Time) {
                   return direct_uploads_.Finish(who.tenant, *request);
                 });
}

}  // namespace ballast::server
