// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_LISTEN_ADDRESS_H_
#define BALLAST_SERVER_API_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace ballast::server {

// Host of "host:port" without brackets. INVALID_ARGUMENT (LISTEN_ADDRESS_INVALID) for anything
// else.
struct ListenAddress {
  std::string host;
  int port = 0;
};
absl::Status ParseListenAddress(const std::string& address, ListenAddress* parsed);

// OK when the address may be listened on: any with TLS, loopback only without. INVALID_ARGUMENT
// (LISTEN_ADDRESS_INVALID, TLS_REQUIRED).
absl::Status CheckListenAddress(const std::string& address, bool tls);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_LISTEN_ADDRESS_H_
