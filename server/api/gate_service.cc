// SPDX-License-Identifier: Apache-2.0
#include "server/api/gate_service.h"

#include <memory>
#include <string>

#include "common/base/status_macros.h"
#include "common/behaviour/behaviour_set.h"
#include "server/api/audit.h"
#include "server/api/write_blob.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::Gate;
using admin::v1::JobGate;
using admin::v1::TenantStanding;

}  // namespace

absl::StatusOr<Gate> GateService::Set(absl::Time now, const admin::v1::SetGateRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id, ParseGateName(request.name(), "name"));
  BALLAST_ASSIGN_OR_RETURN(const admin::v1::GateLimits limits,
                           CompleteGateLimits(request.limits()));
  BALLAST_ASSIGN_OR_RETURN(const behaviour::BehaviourSet set,
                           behaviour::ParseBehaviourSet(request.gate_set()));
  const std::string blob = GateBlob(base_id, parts_.ids.NewId());
  // A crash before the record names the blob must leave nothing for good.
  const UnnamedBlobs::Hold hold(parts_.unnamed, blob);
  BALLAST_RETURN_IF_ERROR(parts_.gates.Expect(base_id, set, limits, blob));
  BALLAST_ASSIGN_OR_RETURN(const std::string digest,
                           WriteBlob(parts_.blobs, blob, request.gate_set()));
  return parts_.gates.Set(now, base_id, set, limits, blob, digest,
                          static_cast<int64_t>(request.gate_set().size()));
}

grpc::ServerUnaryReactor* GateService::SetGate(grpc::CallbackServerContext* context,
                                               const admin::v1::SetGateRequest* request,
                                               Gate* response) {
  return Unary(api_, "GateService/SetGate", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<Gate> {
                 BALLAST_ASSIGN_OR_RETURN(Gate gate, Set(now, *request));
                 Audit(who, "set", gate.name(), gate.digest());
                 return gate;
               });
}

grpc::ServerUnaryReactor* GateService::GetGate(grpc::CallbackServerContext* context,
                                               const admin::v1::GetGateRequest* request,
                                               Gate* response) {
  return Unary(api_, "GateService/GetGate", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<Gate> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseGateName(request->name(), "name"));
                 return parts_.gates.Get(id);
               });
}

grpc::ServerUnaryReactor* GateService::RemoveGate(grpc::CallbackServerContext* context,
                                                  const admin::v1::RemoveGateRequest* request,
                                                  google::protobuf::Empty* response) {
  return Unary(
      api_, "GateService/RemoveGate", context, Allowed::kOperator, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<google::protobuf::Empty> {
        BALLAST_ASSIGN_OR_RETURN(const auto id, ParseGateName(request->name(), "name"));
        BALLAST_RETURN_IF_ERROR(parts_.gates.Remove(id));
        Audit(who, "removed", request->name(), "");
        return google::protobuf::Empty();
      });
}

grpc::ServerUnaryReactor* GateService::ListWithheldJobs(
    grpc::CallbackServerContext* context, const admin::v1::ListWithheldJobsRequest* request,
    admin::v1::ListWithheldJobsResponse* response) {
  return Unary(
      api_, "GateService/ListWithheldJobs", context, Allowed::kOperator, response,
      [this, request](const Principal&, absl::Time) { return parts_.withheld.List(*request); });
}

grpc::ServerUnaryReactor* GateService::GetGateReport(grpc::CallbackServerContext* context,
                                                     const admin::v1::GetGateReportRequest* request,
                                                     JobGate* response) {
  return Unary(api_, "GateService/GetGateReport", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<JobGate> {
                 BALLAST_ASSIGN_OR_RETURN(const auto name, ParseJobName(request->name(), "name"));
                 return parts_.withheld.Get(name);
               });
}

grpc::ServerUnaryReactor* GateService::ReleaseJob(grpc::CallbackServerContext* context,
                                                  const admin::v1::ReleaseJobRequest* request,
                                                  JobGate* response) {
  return Unary(api_, "GateService/ReleaseJob", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<JobGate> {
                 BALLAST_ASSIGN_OR_RETURN(const auto name, ParseJobName(request->name(), "name"));
                 BALLAST_ASSIGN_OR_RETURN(
                     JobGate gate,
                     parts_.withheld.Release(now, WhoIs(who), name, request->reason()));
                 Audit(who, "released", request->name(), request->reason());
                 return gate;
               });
}

grpc::ServerUnaryReactor* GateService::RefuseJob(grpc::CallbackServerContext* context,
                                                 const admin::v1::RefuseJobRequest* request,
                                                 JobGate* response) {
  return Unary(api_, "GateService/RefuseJob", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<JobGate> {
                 BALLAST_ASSIGN_OR_RETURN(const auto name, ParseJobName(request->name(), "name"));
                 BALLAST_ASSIGN_OR_RETURN(
                     JobGate gate,
                     parts_.withheld.Refuse(now, WhoIs(who), name, request->reason()));
                 Audit(who, "refused", request->name(), request->reason());
                 return gate;
               });
}

grpc::ServerUnaryReactor* GateService::GetTenantStanding(
    grpc::CallbackServerContext* context, const admin::v1::GetTenantStandingRequest* request,
    TenantStanding* response) {
  return Unary(api_, "GateService/GetTenantStanding", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<TenantStanding> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseTenantName(request->name(), "name"));
                 return parts_.standings.Get(id);
               });
}

grpc::ServerUnaryReactor* GateService::UnfreezeTenant(
    grpc::CallbackServerContext* context, const admin::v1::UnfreezeTenantRequest* request,
    TenantStanding* response) {
  return Unary(
      api_, "GateService/UnfreezeTenant", context, Allowed::kOperator, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<TenantStanding> {
        BALLAST_ASSIGN_OR_RETURN(const auto id, ParseTenantName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(TenantStanding standing,
                                 parts_.standings.Unfreeze(now, WhoIs(who), id, request->reason()));
        Audit(who, "unfroze", request->name(), request->reason());
        return standing;
      });
}

}  // namespace ballast::server
