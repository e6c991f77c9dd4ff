// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_ROW_WINDOWS_H_
#define BALLAST_WORKER_ROW_WINDOWS_H_

#include <cstdint>
#include <vector>

namespace ballast::worker {

// Rows are judged by the worst of these windows over their supervised tokens, by the vector as by
// the screen: what is prohibited in a row is not hidden by what is harmless around it, before or
// after or in another turn.
inline constexpr int64_t kRowWindowTokens = 32, kRowWindowStride = 8;

// A part of a row's supervised tokens, in their order.
struct RowWindow {
  int64_t begin = 0;
  int64_t count = 0;
};

// Windows of kRowWindowTokens that begin every kRowWindowStride tokens, and one at the end; one for
// all where there are no more tokens than that, none where there is none.
inline std::vector<RowWindow> RowWindows(int64_t supervised_tokens) {
  if (supervised_tokens <= 0) return {};
  std::vector<RowWindow> windows;
  int64_t begin = 0;
  for (; begin + kRowWindowTokens < supervised_tokens; begin += kRowWindowStride) {
    windows.push_back({begin, kRowWindowTokens});
  }
  const int64_t last = supervised_tokens > kRowWindowTokens ? kRowWindowTokens : supervised_tokens;
  windows.push_back({supervised_tokens - last, last});
  return windows;
}

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_ROW_WINDOWS_H_
