// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_AUDIT_H_
#define BALLAST_SERVER_API_AUDIT_H_

#include <string>

#include "absl/strings/escaping.h"
#include "common/base/log.h"
#include "server/core/authenticator.h"

namespace ballast::server {

// Keys need no label.
inline std::string WhoIs(const Principal& who) {
  return who.label.empty() ? "an operator" : who.label;
}

// Writes the decision of an operator to the log, for whoever reads it later.
inline void Audit(const Principal& who, const char* what, const std::string& name,
                  const std::string& reason) {
  spdlog::info("audit: {} {} {}{}{}", absl::Utf8SafeCEscape(WhoIs(who)), what, name,
               reason.empty() ? "" : ": ", absl::Utf8SafeCEscape(reason));
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_AUDIT_H_
