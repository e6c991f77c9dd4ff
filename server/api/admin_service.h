// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_ADMIN_SERVICE_H_
#define BALLAST_SERVER_API_ADMIN_SERVICE_H_

#include <string>

#include "ballast/admin/v1/admin_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/base_model_catalog.h"
#include "server/core/blob_store.h"
#include "server/core/collaborators.h"
#include "server/core/control_plane.h"
#include "server/core/row_checks.h"
#include "server/core/vector_catalog.h"
#include "server/core/vector_certification.h"

namespace ballast::server {

// ballast.admin.v1.AdminService. Thread safety: thread-safe.
class AdminService : public admin::v1::AdminService::CallbackService {
 public:
  struct Parts {
    BaseModelCatalog& models;
    VectorCatalog& vectors;
    VectorCertification& certification;
    ControlPlane& plane;
    JobStore& store;
    BlobStore& blobs;
    UnnamedBlobs& unnamed;
    RowChecks& row_checks;
    IdSource& ids;
    std::string staging_dir;     // local folder for uploads that are not checked yet
    int64_t max_rows_bytes = 0;  // largest file of rows for a vector
  };

  // `api` and what `parts` refers to must outlive the service.
  AdminService(const ApiContext& api, const Parts& parts) : api_(api), parts_(parts) {}

  grpc::ServerReadReactor<admin::v1::ImportBaseModelRequest>* ImportBaseModel(
      grpc::CallbackServerContext* context, v1::BaseModel* response) override;
  grpc::ServerReadReactor<admin::v1::TrainVectorRequest>* TrainVector(
      grpc::CallbackServerContext* context, admin::v1::Vector* response) override;
  grpc::ServerUnaryReactor* GetVector(grpc::CallbackServerContext* context,
                                      const admin::v1::GetVectorRequest* request,
                                      admin::v1::Vector* response) override;
  grpc::ServerUnaryReactor* ListVectors(grpc::CallbackServerContext* context,
                                        const admin::v1::ListVectorsRequest* request,
                                        admin::v1::ListVectorsResponse* response) override;
  grpc::ServerUnaryReactor* CertifyVector(grpc::CallbackServerContext* context,
                                          const admin::v1::CertifyVectorRequest* request,
                                          admin::v1::SignedCertificate* response) override;
  grpc::ServerUnaryReactor* ActivateVector(grpc::CallbackServerContext* context,
                                           const admin::v1::ActivateVectorRequest* request,
                                           admin::v1::Vector* response) override;
  grpc::ServerUnaryReactor* GetVectorCertificate(
      grpc::CallbackServerContext* context, const admin::v1::GetVectorCertificateRequest* request,
      admin::v1::SignedCertificate* response) override;
  grpc::ServerUnaryReactor* RetireVector(grpc::CallbackServerContext* context,
                                         const admin::v1::RetireVectorRequest* request,
                                         admin::v1::Vector* response) override;
  grpc::ServerUnaryReactor* GetJobProtection(grpc::CallbackServerContext* context,
                                             const admin::v1::GetJobProtectionRequest* request,
                                             admin::v1::JobProtection* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const admin::v1::ListWorkersRequest* request,
                                        admin::v1::ListWorkersResponse* response) override;

 private:
  // Puts the share that is done, which lives in memory only, into a vector in training.
  void AddLiveProgress(admin::v1::Vector& vector);

  const ApiContext& api_;
  const Parts parts_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_ADMIN_SERVICE_H_
