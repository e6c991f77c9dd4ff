// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_USAGE_SERVICE_H_
#define BALLAST_SERVER_API_USAGE_SERVICE_H_

#include "ballast/v1/usage_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/core/usage.h"

namespace ballast::server {

// ballast.v1.UsageService. Thread safety: thread-safe.
class UsageService : public v1::UsageService::CallbackService {
 public:
  // All must outlive the service.
  UsageService(const ApiContext& api, UsageCatalog& usage) : api_(api), usage_(usage) {}

  grpc::ServerUnaryReactor* ListMonthlyUsage(grpc::CallbackServerContext* context,
                                             const v1::ListMonthlyUsageRequest* request,
                                             v1::ListMonthlyUsageResponse* response) override;

 private:
  const ApiContext& api_;
  UsageCatalog& usage_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_USAGE_SERVICE_H_
