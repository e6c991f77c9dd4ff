// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_KILL_POINT_H_
#define BALLAST_COMMON_BASE_KILL_POINT_H_

#include <string_view>

namespace ballast {

// A named step at which tests/chaos kills the process to see what survives. With the environment
// variable BALLAST_KILL_AT=<name>[:<n>] the n-th pass (1 when missing) appends the name to the file
// BALLAST_KILL_LOG and raises SIGKILL. Does nothing but in builds of the type Dev.
//
// Names are "<program>.<what>.<what has just happened to it>", once in the source each, so that
// tests/chaos can list them all. Thread safety: thread-safe.
void PassKillPoint(std::string_view name);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_KILL_POINT_H_
