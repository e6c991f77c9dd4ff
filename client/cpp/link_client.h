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

// How often links are asked for again.
class LinkRounds {
 public:
  // After a round that failed by `status`, having `brought` something or not: whether there is
  // another one, or the bytes go through the server.
  bool GoOn(bool brought, const absl::Status& status);
  // Rounds since the last one that brought something.
  int fruitless() const { return fruitless_; }

 private:
  int fruitless_ = 0;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_LINK_CLIENT_H_
