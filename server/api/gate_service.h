// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_GATE_SERVICE_H_
#define BALLAST_SERVER_API_GATE_SERVICE_H_

#include "ballast/admin/v1/gate_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/blob_store.h"
#include "server/core/collaborators.h"
#include "server/core/gate_catalog.h"
#include "server/core/tenant_standing.h"
#include "server/core/withheld_jobs.h"

namespace ballast::server {

// ballast.admin.v1.GateService. Every decision is written to the log, with the label of the key.
// Thread safety: thread-safe.
class GateService : public admin::v1::GateService::CallbackService {
 public:
  struct Parts {
    GateCatalog& gates;
    WithheldJobs& withheld;
    TenantStandings& standings;
    BlobStore& blobs;
    UnnamedBlobs& unnamed;
    IdSource& ids;
  };

  // `api` and what `parts` refers to must outlive the service.
  GateService(const ApiContext& api, const Parts& parts) : api_(api), parts_(parts) {}

  grpc::ServerUnaryReactor* SetGate(grpc::CallbackServerContext* context,
                                    const admin::v1::SetGateRequest* request,
                                    admin::v1::Gate* response) override;
  grpc::ServerUnaryReactor* GetGate(grpc::CallbackServerContext* context,
                                    const admin::v1::GetGateRequest* request,
                                    admin::v1::Gate* response) override;
  grpc::ServerUnaryReactor* RemoveGate(grpc::CallbackServerContext* context,
                                       const admin::v1::RemoveGateRequest* request,
                                       google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ListWithheldJobs(
      grpc::CallbackServerContext* context, const admin::v1::ListWithheldJobsRequest* request,
      admin::v1::ListWithheldJobsResponse* response) override;
  grpc::ServerUnaryReactor* GetGateReport(grpc::CallbackServerContext* context,
                                          const admin::v1::GetGateReportRequest* request,
                                          admin::v1::JobGate* response) override;
  grpc::ServerUnaryReactor* ReleaseJob(grpc::CallbackServerContext* context,
                                       const admin::v1::ReleaseJobRequest* request,
                                       admin::v1::JobGate* response) override;
  grpc::ServerUnaryReactor* RefuseJob(grpc::CallbackServerContext* context,
                                      const admin::v1::RefuseJobRequest* request,
                                      admin::v1::JobGate* response) override;
  grpc::ServerUnaryReactor* GetTenantStanding(grpc::CallbackServerContext* context,
                                              const admin::v1::GetTenantStandingRequest* request,
                                              admin::v1::TenantStanding* response) override;
  grpc::ServerUnaryReactor* UnfreezeTenant(grpc::CallbackServerContext* context,
                                           const admin::v1::UnfreezeTenantRequest* request,
                                           admin::v1::TenantStanding* response) override;

 private:
  absl::StatusOr<admin::v1::Gate> Set(absl::Time now, const admin::v1::SetGateRequest& request);

  const ApiContext& api_;
  const Parts parts_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_GATE_SERVICE_H_
