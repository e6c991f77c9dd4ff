// SPDX-License-Identifier: Apache-2.0
#include "tests/referee/probe_log.h"

#include "common/base/log.h"

namespace ballast::referee {

absl::Status LogToStandardError() { return InitLog("engine_probe", "warn"); }

}  // namespace ballast::referee
