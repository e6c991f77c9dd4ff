// SPDX-License-Identifier: Apache-2.0
// The C interfaces of the Rust library in C++ dress.
#ifndef BALLAST_COMMON_RUST_RUST_CALL_H_
#define BALLAST_COMMON_RUST_RUST_CALL_H_

#include <string>
#include <string_view>

#include "common/rust/include/ballast_abi.h"

namespace ballast {

inline BallastText ToRust(std::string_view text) { return {text.data(), text.size()}; }

// Copies a buffer of the Rust library and gives it back.
inline std::string TakeBuffer(BallastTextBuffer buffer) {
  std::string result(buffer.data, buffer.size);
  ballast_text_buffer_free(buffer);
  return result;
}

}  // namespace ballast

#endif  // BALLAST_COMMON_RUST_RUST_CALL_H_
