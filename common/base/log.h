// SPDX-License-Identifier: Apache-2.0
// Logging for programs: one line per event on standard error, by spdlog. What may be logged: names,
// counts, sizes, states and reasons. Never rows, replies, keys, losses under the vector, or bytes
// of one (docs/security.md).
#ifndef BALLAST_COMMON_BASE_LOG_H_
#define BALLAST_COMMON_BASE_LOG_H_

#include <string_view>

#include "spdlog/spdlog.h"

namespace ballast {

// Sends log lines of `program` to standard error at `level` ("debug", "info", "warn", "error").
void InitLog(std::string_view program, std::string_view level);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_LOG_H_
