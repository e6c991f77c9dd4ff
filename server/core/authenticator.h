// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_AUTHENTICATOR_H_
#define BALLAST_SERVER_CORE_AUTHENTICATOR_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast::server {

enum class Role { kTenant, kOperator, kWorker };

// Who calls.
struct Principal {
  Role role = Role::kTenant;
  std::string tenant;  // set for kTenant
  std::string label;   // for logs
};

// Tells who holds an API key. Thread safety: thread-safe.
class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // `authorization` is the metadata's value, "Bearer <key>", or empty. UNAUTHENTICATED
  // (API_KEY_MISSING, API_KEY_INVALID).
  virtual absl::StatusOr<Principal> Authenticate(std::string_view authorization) const = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_AUTHENTICATOR_H_
