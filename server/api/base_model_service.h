// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_BASE_MODEL_SERVICE_H_
#define BALLAST_SERVER_API_BASE_MODEL_SERVICE_H_

#include "ballast/v1/base_model_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/core/base_model_catalog.h"

namespace ballast::server {

// ballast.v1.BaseModelService. Thread safety: thread-safe.
class BaseModelService : public v1::BaseModelService::CallbackService {
 public:
  // Both must outlive the service.
  BaseModelService(const ApiContext& api, BaseModelCatalog& models) : api_(api), models_(models) {}

  grpc::ServerUnaryReactor* GetBaseModel(grpc::CallbackServerContext* context,
                                         const v1::GetBaseModelRequest* request,
                                         v1::BaseModel* response) override;
  grpc::ServerUnaryReactor* ListBaseModels(grpc::CallbackServerContext* context,
                                           const v1::ListBaseModelsRequest* request,
                                           v1::ListBaseModelsResponse* response) override;

 private:
  const ApiContext& api_;
  BaseModelCatalog& models_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_BASE_MODEL_SERVICE_H_
