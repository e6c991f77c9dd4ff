// SPDX-License-Identifier: Apache-2.0
// Resource names, as in the proto files: parsing and building. A name that does not parse gives
// INVALID_ARGUMENT (NAME_INVALID) with the field and the pattern wanted.
#ifndef BALLAST_SERVER_CORE_RESOURCE_NAME_H_
#define BALLAST_SERVER_CORE_RESOURCE_NAME_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast::server {

// True for 1 to 63 lower-case letters, digits, "-", and "." where not first.
bool IsResourceId(std::string_view id);

// Id of `baseModels/{id}`. `field` is named in the error.
absl::StatusOr<std::string> ParseBaseModelName(std::string_view name, std::string_view field);
// Id of `baseModels/{id}/gate`.
absl::StatusOr<std::string> ParseGateName(std::string_view name, std::string_view field);
// Id of `baseModels/{id}/safetyRows`.
absl::StatusOr<std::string> ParseSafetyRowsName(std::string_view name, std::string_view field);
// Id of `baseModels/{id}/screen`.
absl::StatusOr<std::string> ParseScreenName(std::string_view name, std::string_view field);
// Id of `vectors/{id}`.
absl::StatusOr<std::string> ParseVectorName(std::string_view name, std::string_view field);
// Id of `tenants/{id}`.
absl::StatusOr<std::string> ParseTenantName(std::string_view name, std::string_view field);

// A tenant's thing.
struct TenantName {
  std::string tenant;
  std::string id;
};
// `tenants/{tenant}/datasets/{id}`.
absl::StatusOr<TenantName> ParseDatasetName(std::string_view name, std::string_view field);
// `tenants/{tenant}/fineTuningJobs/{id}`.
absl::StatusOr<TenantName> ParseJobName(std::string_view name, std::string_view field);
// The job of `tenants/{tenant}/fineTuningJobs/{id}/delta`.
absl::StatusOr<TenantName> ParseDeltaName(std::string_view name, std::string_view field);

std::string BaseModelName(std::string_view id);
std::string GateName(std::string_view base_model_id);
std::string SafetyRowsName(std::string_view base_model_id);
std::string ScreenName(std::string_view base_model_id);
std::string VectorName(std::string_view id);
std::string WorkerName(std::string_view id);
std::string DatasetName(std::string_view tenant, std::string_view id);
std::string JobName(std::string_view tenant, std::string_view id);
std::string DeltaName(std::string_view tenant, std::string_view id);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_RESOURCE_NAME_H_
