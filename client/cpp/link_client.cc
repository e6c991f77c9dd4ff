// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/link_client.h"

#include "common/base/error.h"

namespace ballast::client {

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClientFor(const Connection& connection) {
  const ConnectionOptions& options = connection.options();
  return HttpClient::Create(
      {.allow_plain = options.tls_authority_file.empty() && IsLoopback(options.server_address)});
}

bool HasNoLinks(const absl::Status& status) {
  return absl::IsUnimplemented(status) || ErrorReason(status) == "LINKS_UNAVAILABLE";
}

}  // namespace ballast::client
