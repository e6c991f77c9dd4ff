// SPDX-License-Identifier: Apache-2.0
// Which rows are trained together: the plan of optimizer steps and micro-batches. The engine trains
// by it and the server's estimate counts by it, so both agree.
#ifndef BALLAST_COMMON_DATASET_PACKING_H_
#define BALLAST_COMMON_DATASET_PACKING_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace ballast::dataset {

struct PackingOptions {
  uint64_t seed = 0;
  int64_t batch_rows = 16;                    // rows per optimizer step
  int64_t max_tokens_per_micro_batch = 2048;  // a longer row is a micro-batch of its own
};

// Rows that go through the model in one forward, packed end to end without padding.
struct MicroBatch {
  std::vector<int64_t> rows;  // indices into the lengths given; longest first
  int64_t tokens = 0;         // sum of their lengths
  int group = 0;              // all rows are of this group
};

// One optimizer step: gradients of its micro-batches are added up.
struct Step {
  std::vector<MicroBatch> micro_batches;
};

// Steps of an epoch of `rows` rows: the last may have fewer than `batch_rows` rows and is kept.
int64_t StepsPerEpoch(int64_t rows, int64_t batch_rows);

// Steps of the whole job.
int64_t TotalSteps(int64_t rows, int64_t batch_rows, int64_t epochs);

// Safety rows that are mixed into each epoch of a job of `rows` rows: `share` of them, and at least
// 16, so that a small job has some in every few steps; none for a share of 0.
int64_t SafetyRowCount(int64_t rows, double share);

// Which `count` of `set` safety rows epoch `epoch` mixes in, in ascending order. Epochs take turns:
// no row is drawn twice, by one epoch or another, before each was drawn once. Depends on the
// arguments alone. None where `set` is 0.
std::vector<int64_t> DrawSafetyRows(int64_t set, int64_t count, uint64_t seed, int64_t epoch);

// The order in which epoch `epoch` visits `rows` rows: a permutation that depends on (rows, seed,
// epoch) alone, and is the same on every machine and compiler. Step s takes the rows at [s *
// batch_rows, (s + 1) * batch_rows).
std::vector<int64_t> EpochOrder(int64_t rows, uint64_t seed, int64_t epoch);

// The plan of one epoch. `lengths[i]` is row i's tokens, at least 1. `groups`, when not empty,
// gives each row's group (for example 1: vector on, 0: off); a micro-batch holds rows of one group
// only, and the micro-batches of a step are ordered by group. Which rows share a step does not
// depend on groups or lengths. Micro-batches of a step are filled first-fit by decreasing length.
//
// INVALID_ARGUMENT PACKING_INVALID: no rows, a length below 1, groups of another size than lengths,
// or an option below 1.
absl::StatusOr<std::vector<Step>> PlanEpoch(const std::vector<int64_t>& lengths,
                                            const std::vector<int>& groups, int64_t epoch,
                                            const PackingOptions& options);

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_PACKING_H_
