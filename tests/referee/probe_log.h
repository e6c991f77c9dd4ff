// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_TESTS_REFEREE_PROBE_LOG_H_
#define BALLAST_TESTS_REFEREE_PROBE_LOG_H_

#include "absl/status/status.h"

namespace ballast::referee {

// Sends the engine's warnings to standard error: standard output is for answers. A file of its own,
// since torch brings an fmt that spdlog's headers can't be compiled with.
absl::Status LogToStandardError();

}  // namespace ballast::referee

#endif  // BALLAST_TESTS_REFEREE_PROBE_LOG_H_
