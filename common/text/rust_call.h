// SPDX-License-Identifier: Apache-2.0
// Private to common/text: the C interface of the Rust library in C++ dress.
#ifndef BALLAST_COMMON_TEXT_RUST_CALL_H_
#define BALLAST_COMMON_TEXT_RUST_CALL_H_

#include <string>
#include <string_view>

#include "common/text/rust/include/ballast_text.h"

namespace ballast::text {

inline BallastText ToRust(std::string_view text) { return {text.data(), text.size()}; }

// Copies a buffer of the Rust library and gives it back.
inline std::string TakeBuffer(BallastTextBuffer buffer) {
  std::string result(buffer.data, buffer.size);
  ballast_text_buffer_free(buffer);
  return result;
}

}  // namespace ballast::text

#endif  // BALLAST_COMMON_TEXT_RUST_CALL_H_
