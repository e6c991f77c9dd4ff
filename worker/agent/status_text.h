// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_STATUS_TEXT_H_
#define BALLAST_WORKER_AGENT_STATUS_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::worker::agent {

// "CODE (REASON): message" for a line of the log. The message of a diverged training is left out:
// it could hold a loss under the vector (S2).
inline std::string StatusText(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return absl::StrCat(absl::StatusCodeToString(status.code()),
                      reason.empty() ? "" : absl::StrCat(" (", reason, ")"),
                      reason == "LOSS_NOT_FINITE" ? "" : absl::StrCat(": ", status.message()));
}

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_STATUS_TEXT_H_
