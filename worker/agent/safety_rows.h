// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_SAFETY_ROWS_H_
#define BALLAST_WORKER_AGENT_SAFETY_ROWS_H_

#include <cstdint>
#include <vector>

#include "worker/trainer.h"

namespace ballast::worker::agent {

// The safety rows of a job of `rows` rows: dataset::SafetyRowCount of `set`, in an order that
// depends on the seed alone. A set that is too small is gone through again and again; none of its
// rows is taken twice before each was taken once. `set` is not empty.
std::vector<TokenRow> ChooseSafetyRows(std::vector<TokenRow> set, int64_t rows, double share,
                                       uint64_t seed);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_SAFETY_ROWS_H_
