// SPDX-License-Identifier: Apache-2.0
// Logging for programs: one line per event on standard error, by spdlog. What may be logged: names,
// counts, sizes, states and reasons. Never rows, replies, keys, losses under the vector, or bytes
// of one (docs/security.md).
#ifndef BALLAST_COMMON_BASE_LOG_H_
#define BALLAST_COMMON_BASE_LOG_H_

#include <string_view>

#include "absl/status/status.h"
#include "spdlog/spdlog.h"

namespace ballast {

// Sends log lines of `program` to standard error at `level`, the log_level of its configuration:
// "debug", "info", "warn", "error", or empty for "info". INVALID_ARGUMENT (CONFIG_INVALID) for any
// other, and nothing changes.
absl::Status InitLog(std::string_view program, std::string_view level);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_LOG_H_
