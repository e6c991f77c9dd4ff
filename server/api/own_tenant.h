// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_OWN_TENANT_H_
#define BALLAST_SERVER_API_OWN_TENANT_H_

#include <string>

#include "absl/status/status.h"
#include "server/core/authenticator.h"

namespace ballast::server {

// OK when `parent` is the caller's own tenant. NOT_FOUND (TENANT_NOT_FOUND) for every other,
// whether it exists or not; INVALID_ARGUMENT (NAME_INVALID).
absl::Status CheckOwnTenant(const Principal& who, const std::string& parent);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_OWN_TENANT_H_
