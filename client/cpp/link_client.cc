// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/link_client.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::client {

absl::StatusOr<const HttpClient*> LinkClient::Get() {
  if (http_ == nullptr) {
    const ConnectionOptions& options = connection_.options();
    const bool plain = options.tls_authority_file.empty() && IsLoopback(options.server_address);
    BALLAST_ASSIGN_OR_RETURN(http_, HttpClient::Create({.allow_plain = plain}));
  }
  return http_.get();
}

bool LinkRounds::GoOn(bool brought, const absl::Status& status) {
  constexpr int kMostFruitless = 2;
  fruitless_ = brought ? 0 : fruitless_ + 1;
  // Whatever it brought, the rest would take for ever.
  if (ErrorReason(status) == "LINK_SLOW") return false;
  // A link may have expired; a store that cannot be reached from here stays so.
  return brought || (ErrorReason(status) != "LINK_UNREACHABLE" && fruitless_ < kMostFruitless);
}

bool HasNoLinks(const absl::Status& status) {
  return absl::IsUnimplemented(status) || ErrorReason(status) == "LINKS_UNAVAILABLE";
}

}  // namespace ballast::client
