// SPDX-License-Identifier: Apache-2.0
#include "common/base/loopback.h"

#include <arpa/inet.h>

#include <string>

namespace ballast {

bool IsLoopbackHost(std::string_view host) {
  // inet_pton reads up to the first NUL only.
  if (host.find('\0') != std::string_view::npos) return false;
  if (host == "localhost") return true;
  in_addr v4 = {};
  if (inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  in6_addr v6 = {};
  return inet_pton(AF_INET6, std::string(host).c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool IsLoopbackAddress(std::string_view address) {
  return IsLoopbackHost(address.substr(0, address.rfind(':')));
}

}  // namespace ballast
