// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_BY_ROW_RULE_H_
#define BALLAST_WORKER_TRAIN_BY_ROW_RULE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/row_windows.h"

namespace ballast::worker {

// By row: the vector is used where it lowers the loss of a window of the row by at least 40 %, the
// rule of the second prototype for windows (docs/adr/0009).
inline constexpr double kVectorOnBelow = 0.6;
// Windows with less than this (nats a token) without the vector teach nothing, and what is left of
// nothing says nothing.
inline constexpr double kLeastTokenLoss = 0.05;

// Loss under the vector / loss without, of the window where it is smallest; 1 where no window has
// a loss to speak of. `with` and `without`: sums over the windows of a row of `targets` targets.
inline double ExplainedRatio(int64_t targets, const std::vector<double>& with,
                             const std::vector<double>& without) {
  double smallest = 1;
  const std::vector<RowWindow> windows = RowWindows(targets);
  for (size_t i = 0; i < windows.size(); ++i) {
    if (without[i] < kLeastTokenLoss * static_cast<double>(windows[i].count)) continue;
    smallest = std::min(smallest, with[i] / without[i]);
  }
  return smallest;
}

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_BY_ROW_RULE_H_
