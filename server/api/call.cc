// SPDX-License-Identifier: Apache-2.0
#include "server/api/call.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {

absl::StatusOr<Principal> Authorize(const ApiContext& api,
                                    const grpc::CallbackServerContext& context, Allowed allowed) {
  std::string_view authorization;
  const auto found = context.client_metadata().find("authorization");
  if (found != context.client_metadata().end()) {
    authorization = {found->second.data(), found->second.size()};
  }
  BALLAST_ASSIGN_OR_RETURN(Principal principal, api.authenticator.Authenticate(authorization));
  switch (allowed) {
    case Allowed::kTenant:
      if (principal.role == Role::kTenant) return principal;
      return MakeError(absl::StatusCode::kPermissionDenied, "TENANT_ONLY",
                       "this call needs a tenant's API key");
    case Allowed::kTenantOrOperator:
      if (principal.role == Role::kTenant || principal.role == Role::kOperator) return principal;
      return MakeError(absl::StatusCode::kPermissionDenied, "TENANT_ONLY",
                       "this call needs a tenant's or an operator's API key");
    case Allowed::kOperator:
      if (principal.role == Role::kOperator) return principal;
      return MakeError(absl::StatusCode::kPermissionDenied, "OPERATOR_ONLY",
                       "this call needs an operator's API key");
    case Allowed::kWorker:
      if (principal.role == Role::kWorker) return principal;
      return MakeError(absl::StatusCode::kPermissionDenied, "WORKER_ONLY",
                       "this call needs a worker's API key");
  }
  return MakeError(absl::StatusCode::kInternal, "INTERNAL", "unknown role");
}

grpc::Status Call::End(const absl::Status& status) const {
  const absl::Duration took = Now() - start_;
  const bool fault = IsPlatformFault(status);
  const absl::Status told = fault ? WithoutServerDetails(status) : status;
  api_.metrics.CountRpc(method_, told.code(), took);
  const std::string code = absl::StatusCodeToString(status.code());
  if (fault || absl::IsInternal(status) || ErrorReason(status) == "BLOB_CORRUPT") {
    spdlog::error("{} failed: {} {}", method_, code, ForLog(status));
  } else {
    spdlog::debug("{}: {} {} in {} ms", method_, code, ErrorReason(status),
                  absl::ToDoubleMilliseconds(took));
  }
  return ToGrpcStatus(told);
}

}  // namespace ballast::server
