// SPDX-License-Identifier: Apache-2.0
// Text of unknown origin (file names, names inside files) as text that protobuf takes: a proto3
// string that is no UTF-8 is refused by whoever parses it, and the whole message is lost with it.
#ifndef BALLAST_COMMON_BASE_UTF8_H_
#define BALLAST_COMMON_BASE_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace ballast {

// `text` as valid UTF-8 of at most `max_bytes` bytes: a byte that belongs to no character becomes
// U+FFFD, and the cut is made between characters.
std::string ValidUtf8(std::string_view text, size_t max_bytes = std::string_view::npos);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_UTF8_H_
