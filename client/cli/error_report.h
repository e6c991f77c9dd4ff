// SPDX-License-Identifier: Apache-2.0
// How failures are told: `error: <message>`, the reason, the violations, what to do; and the exit
// code.
#ifndef BALLAST_CLIENT_CLI_ERROR_REPORT_H_
#define BALLAST_CLIENT_CLI_ERROR_REPORT_H_

#include <string>

#include "absl/status/status.h"

namespace ballast::cli {

// Documented in docs/cli.md; programs rely on them.
enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,       // the service or this program failed
  kExitUsage = 2,        // the command line is wrong
  kExitNotFound = 3,     // something that was named does not exist
  kExitRefused = 4,      // invalid, or not possible in this state
  kExitUnavailable = 5,  // not reachable, too slow or out of space now; trying again may help
  kExitEndedBadly = 6,   // the job failed or was cancelled, the vector was rejected
  kExitNotAllowed = 7,   // the API key is missing, unknown, or not allowed to do this
};

// The failure, ending the program with `code` whatever its own code says.
absl::Status WithExitCode(absl::Status status, ExitCode code);

ExitCode ExitCodeOf(const absl::Status& status);

// Lines for people, ending in a new line.
std::string DescribeError(const absl::Status& status);

// One line of JSON: {"error": {"code", "reason", "message", "violations", "hint",
// "retry_after_seconds", "exit_code"}}.
std::string DescribeErrorJson(const absl::Status& status);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_ERROR_REPORT_H_
