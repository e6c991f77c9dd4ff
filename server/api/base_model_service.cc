// SPDX-License-Identifier: Apache-2.0
#include "server/api/base_model_service.h"

#include <string>

#include "common/base/status_macros.h"
#include "server/core/resource_name.h"

namespace ballast::server {

grpc::ServerUnaryReactor* BaseModelService::GetBaseModel(grpc::CallbackServerContext* context,
                                                         const v1::GetBaseModelRequest* request,
                                                         v1::BaseModel* response) {
  return Unary(api_, "BaseModelService/GetBaseModel", context, Allowed::kTenantOrOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<v1::BaseModel> {
                 BALLAST_ASSIGN_OR_RETURN(const std::string id,
                                          ParseBaseModelName(request->name(), "name"));
                 return models_.Get(id);
               });
}

grpc::ServerUnaryReactor* BaseModelService::ListBaseModels(grpc::CallbackServerContext* context,
                                                           const v1::ListBaseModelsRequest* request,
                                                           v1::ListBaseModelsResponse* response) {
  return Unary(api_, "BaseModelService/ListBaseModels", context, Allowed::kTenantOrOperator,
               response,
               [this, request](const Principal&, absl::Time) { return models_.List(*request); });
}

}  // namespace ballast::server
