// SPDX-License-Identifier: Apache-2.0
#include "server/api/own_tenant.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/resource_name.h"

namespace ballast::server {

absl::Status CheckOwnTenant(const Principal& who, const std::string& parent) {
  BALLAST_ASSIGN_OR_RETURN(const std::string tenant, ParseTenantName(parent, "parent"));
  if (tenant == who.tenant) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kNotFound, "TENANT_NOT_FOUND",
      absl::StrCat("tenants/", tenant, " does not exist; use the tenant of your API key"));
}

}  // namespace ballast::server
