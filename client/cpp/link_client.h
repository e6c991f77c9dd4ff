// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_LINK_CLIENT_H_
#define BALLAST_CLIENT_CPP_LINK_CLIENT_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/connection.h"
#include "common/http/http_client.h"

namespace ballast::client {

// For links that come over this connection: by plain http only where it is plain itself.
absl::StatusOr<std::unique_ptr<HttpClient>> HttpClientFor(const Connection& connection);

// Whether a call that asked for links was answered that there are none: by a server that gives
// none, or that does not know of them.
bool HasNoLinks(const absl::Status& status);

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_LINK_CLIENT_H_
