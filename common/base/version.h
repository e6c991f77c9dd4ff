// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_VERSION_H_
#define BALLAST_COMMON_BASE_VERSION_H_

#include <string_view>

namespace ballast {

// Version of the code, for example "0.1.0"; the project's in CMakeLists.txt.
std::string_view Version();

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_VERSION_H_
