// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_LINK_CLIENT_H_
#define BALLAST_CLIENT_CPP_LINK_CLIENT_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/connection.h"
#include "common/http/http_client.h"

namespace ballast::client {

// Makes the client for links that come over a connection once there is one to use: a machine may
// have no certificate authorities, and need none. Plain http only where the connection is plain
// itself.
class LinkClient {
 public:
  // `connection` must outlive the object.
  explicit LinkClient(const Connection& connection) : connection_(connection) {}
  // The errors of HttpClient::Create. The client lives as long as the object.
  absl::StatusOr<const HttpClient*> Get();

 private:
  const Connection& connection_;
  std::unique_ptr<HttpClient> http_;
};

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
