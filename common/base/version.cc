// SPDX-License-Identifier: Apache-2.0
#include "common/base/version.h"

namespace ballast {

std::string_view Version() { return BALLAST_VERSION; }

}  // namespace ballast
