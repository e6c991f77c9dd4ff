// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/link_client.h"

#include "common/base/error.h"

namespace ballast::client {

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClientFor(const Connection& connection) {
  const ConnectionOptions& options = connection.options();
  return HttpClient::Create(
      {.allow_plain = options.tls_authority_file.empty() && IsLoopback(options.server_address)});
}

bool LinkRounds::GoOn(bool brought, const absl::Status& status) {
  constexpr int kMostFruitless = 2;
  fruitless_ = brought ? 0 : fruitless_ + 1;
  // A link may have expired; a store that cannot be reached from here stays so.
  return brought || (ErrorReason(status) != "LINK_UNREACHABLE" && fruitless_ < kMostFruitless);
}

bool HasNoLinks(const absl::Status& status) {
  return absl::IsUnimplemented(status) || ErrorReason(status) == "LINKS_UNAVAILABLE";
}

}  // namespace ballast::client
