// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/safety_rows.h"

#include "common/dataset/packing.h"

namespace ballast::worker::agent {

std::vector<TokenRow> ChooseSafetyRows(std::vector<TokenRow> set, int64_t rows, double share,
                                       uint64_t seed) {
  const int64_t count = dataset::SafetyRowCount(rows, share);
  std::vector<TokenRow> chosen;
  for (int64_t round = 0; static_cast<int64_t>(chosen.size()) < count; ++round) {
    for (const int64_t row : dataset::EpochOrder(static_cast<int64_t>(set.size()), seed, round)) {
      if (static_cast<int64_t>(chosen.size()) == count) break;
      chosen.push_back(set[row]);
    }
  }
  return chosen;
}

}  // namespace ballast::worker::agent
