// SPDX-License-Identifier: Apache-2.0
#include "server/api/usage_service.h"

#include "common/base/status_macros.h"
#include "server/api/own_tenant.h"
#include "server/core/resource_name.h"

namespace ballast::server {

grpc::ServerUnaryReactor* UsageService::ListMonthlyUsage(grpc::CallbackServerContext* context,
                                                         const v1::ListMonthlyUsageRequest* request,
                                                         v1::ListMonthlyUsageResponse* response) {
  return Unary(api_, "UsageService/ListMonthlyUsage", context, Allowed::kTenantOrOperator, response,
               [this, request](const Principal& who,
                               absl::Time) -> absl::StatusOr<v1::ListMonthlyUsageResponse> {
                 if (who.role != Role::kOperator) {
                   BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request->parent()));
                 }
                 BALLAST_ASSIGN_OR_RETURN(const std::string tenant,
                                          ParseTenantName(request->parent(), "parent"));
                 return usage_.List(tenant, *request);
               });
}

}  // namespace ballast::server
