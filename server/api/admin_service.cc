// SPDX-License-Identifier: Apache-2.0
#include "server/api/admin_service.h"

#include "common/base/status_macros.h"
#include "server/api/audit.h"
#include "server/api/model_import.h"
#include "server/api/vector_upload.h"
#include "server/core/job_protection.h"
#include "server/core/resource_name.h"

namespace ballast::server {

using admin::v1::SignedCertificate;
using admin::v1::Vector;

void AdminService::AddLiveProgress(Vector& vector) {
  const auto live = parts_.plane.LiveProgress(vector.name());
  if (!live.has_value() || live->total_steps() <= 0) return;
  vector.set_progress(static_cast<double>(live->step()) / static_cast<double>(live->total_steps()));
}

grpc::ServerReadReactor<admin::v1::ImportBaseModelRequest>* AdminService::ImportBaseModel(
    grpc::CallbackServerContext* context, v1::BaseModel* response) {
  const auto who = Authorize(api_, *context, Allowed::kOperator);
  if (!who.ok()) {
    return new Refused<grpc::ServerReadReactor<admin::v1::ImportBaseModelRequest>>(
        Call(api_, "AdminService/ImportBaseModel").End(who.status()));
  }
  auto* import = new ModelImport(api_, context, parts_, *who, response);
  import->Begin();
  return import;
}

grpc::ServerReadReactor<admin::v1::TrainVectorRequest>* AdminService::TrainVector(
    grpc::CallbackServerContext* context, Vector* response) {
  const auto who = Authorize(api_, *context, Allowed::kOperator);
  if (!who.ok()) {
    return new Refused<grpc::ServerReadReactor<admin::v1::TrainVectorRequest>>(
        Call(api_, "AdminService/TrainVector").End(who.status()));
  }
  auto* upload = new VectorUpload(api_, context, parts_, response);
  upload->Begin();
  return upload;
}

grpc::ServerUnaryReactor* AdminService::GetVector(grpc::CallbackServerContext* context,
                                                  const admin::v1::GetVectorRequest* request,
                                                  Vector* response) {
  return Unary(api_, "AdminService/GetVector", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<Vector> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseVectorName(request->name(), "name"));
                 BALLAST_ASSIGN_OR_RETURN(Vector vector, parts_.vectors.Get(id));
                 AddLiveProgress(vector);
                 return vector;
               });
}

grpc::ServerUnaryReactor* AdminService::ListVectors(grpc::CallbackServerContext* context,
                                                    const admin::v1::ListVectorsRequest* request,
                                                    admin::v1::ListVectorsResponse* response) {
  return Unary(api_, "AdminService/ListVectors", context, Allowed::kOperator, response,
               [this, request](const Principal&,
                               absl::Time) -> absl::StatusOr<admin::v1::ListVectorsResponse> {
                 BALLAST_ASSIGN_OR_RETURN(auto list, parts_.vectors.List(*request));
                 for (Vector& vector : *list.mutable_vectors()) AddLiveProgress(vector);
                 return list;
               });
}

grpc::ServerUnaryReactor* AdminService::CertifyVector(
    grpc::CallbackServerContext* context, const admin::v1::CertifyVectorRequest* request,
    SignedCertificate* response) {
  return Unary(
      api_, "AdminService/CertifyVector", context, Allowed::kOperator, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<SignedCertificate> {
        BALLAST_ASSIGN_OR_RETURN(const auto id, ParseVectorName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(auto made, parts_.certification.Certify(now, id, request->result(),
                                                                         request->validate_only()));
        if (!request->validate_only()) {
          Audit(who, made.certificate().passed() ? "certified" : "rejected", request->name(), "");
        }
        return made;
      });
}

grpc::ServerUnaryReactor* AdminService::ActivateVector(
    grpc::CallbackServerContext* context, const admin::v1::ActivateVectorRequest* request,
    Vector* response) {
  return Unary(api_, "AdminService/ActivateVector", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<Vector> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseVectorName(request->name(), "name"));
                 BALLAST_ASSIGN_OR_RETURN(auto vector, parts_.certification.Activate(
                                                           now, id, request->reason(), who.label));
                 Audit(who, "activated", request->name(), request->reason());
                 return vector;
               });
}

grpc::ServerUnaryReactor* AdminService::GetVectorCertificate(
    grpc::CallbackServerContext* context, const admin::v1::GetVectorCertificateRequest* request,
    SignedCertificate* response) {
  return Unary(api_, "AdminService/GetVectorCertificate", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<SignedCertificate> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseVectorName(request->name(), "name"));
                 return parts_.certification.GetCertificate(id);
               });
}

grpc::ServerUnaryReactor* AdminService::RetireVector(grpc::CallbackServerContext* context,
                                                     const admin::v1::RetireVectorRequest* request,
                                                     Vector* response) {
  return Unary(api_, "AdminService/RetireVector", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time) -> absl::StatusOr<Vector> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseVectorName(request->name(), "name"));
                 BALLAST_ASSIGN_OR_RETURN(auto vector, parts_.vectors.Retire(id));
                 Audit(who, "retired", request->name(), "");
                 return vector;
               });
}

grpc::ServerUnaryReactor* AdminService::GetJobProtection(
    grpc::CallbackServerContext* context, const admin::v1::GetJobProtectionRequest* request,
    admin::v1::JobProtection* response) {
  return Unary(
      api_, "AdminService/GetJobProtection", context, Allowed::kOperator, response,
      [this, request](const Principal&, absl::Time) -> absl::StatusOr<admin::v1::JobProtection> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        return FindJobProtection(parts_.store, name);
      });
}

grpc::ServerUnaryReactor* AdminService::ListWorkers(grpc::CallbackServerContext* context,
                                                    const admin::v1::ListWorkersRequest* request,
                                                    admin::v1::ListWorkersResponse* response) {
  return Unary(
      api_, "AdminService/ListWorkers", context, Allowed::kOperator, response,
      [this](const Principal&, absl::Time now) -> absl::StatusOr<admin::v1::ListWorkersResponse> {
        admin::v1::ListWorkersResponse list;
        for (auto& worker : parts_.plane.ListWorkers(now)) {
          *list.add_workers() = std::move(worker);
        }
        return list;
      });
}

}  // namespace ballast::server
