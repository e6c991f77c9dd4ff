// SPDX-License-Identifier: Apache-2.0
#include "server/api/listen_address.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/loopback.h"
#include "common/base/status_macros.h"

namespace ballast::server {

absl::Status ParseListenAddress(const std::string& address, ListenAddress* parsed) {
  const size_t colon = address.rfind(':');
  int port = -1;
  std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    host.clear();  // an IPv6 address without brackets
  }
  if (host.empty() || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return FieldError("listen_address", "LISTEN_ADDRESS_INVALID",
                      absl::StrCat("\"", address,
                                   "\" is no address; give host:port, for example "
                                   "127.0.0.1:7070 or [::1]:7070"));
  }
  parsed->host = host;
  parsed->port = port;
  return absl::OkStatus();
}

absl::Status CheckListenAddress(const std::string& address, bool tls) {
  ListenAddress parsed;
  BALLAST_RETURN_IF_ERROR(ParseListenAddress(address, &parsed));
  if (tls || IsLoopbackHost(parsed.host)) return absl::OkStatus();
  return FieldError(
      "listen_address", "TLS_REQUIRED",
      absl::StrCat(address,
                   " can be reached from other machines, and keys and data would "
                   "travel in clear; give tls_certificate_file and tls_private_key_file, or "
                   "listen on 127.0.0.1"));
}

}  // namespace ballast::server
