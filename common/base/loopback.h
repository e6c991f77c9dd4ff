// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_LOOPBACK_H_
#define BALLAST_COMMON_BASE_LOOPBACK_H_

#include <string_view>

namespace ballast {

// True for "localhost", an address of 127.0.0.0/8, and ::1 with or without brackets: what other
// machines cannot reach. A name that only looks like one of them ("127.example.com") is none.
bool IsLoopbackHost(std::string_view host);

// IsLoopbackHost of the host of "host:port".
bool IsLoopbackAddress(std::string_view address);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_LOOPBACK_H_
