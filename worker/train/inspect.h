// SPDX-License-Identifier: Apache-2.0
// A look inside the training engine for the parity and red-team suites: losses and gradients of
// rows, with and without a vector. Not for what serves customers (S2).
#ifndef BALLAST_WORKER_TRAIN_INSPECT_H_
#define BALLAST_WORKER_TRAIN_INSPECT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer.h"

namespace ballast::worker {

struct LossAndGradients {
  double loss = 0;    // mean cross-entropy over supervised tokens, weights applied
  Adapter gradients;  // d loss / d tensor; names and shapes of the adapter
};

// One forward and backward of `rows` (packed as in training) from `adapter`, on the base with
// `vector` merged when it is not null.
absl::StatusOr<LossAndGradients> ComputeGradients(Engine& engine, const std::vector<TokenRow>& rows,
                                                  const Adapter& adapter, const LoraConfig& lora,
                                                  const SecretBuffer* vector);

// Mean cross-entropy over each row's supervised tokens (0 for a row without any), unweighted, under
// the same conditions.
absl::StatusOr<std::vector<double>> RowLosses(Engine& engine, const std::vector<TokenRow>& rows,
                                              const Adapter& adapter, const LoraConfig& lora,
                                              const SecretBuffer* vector);

// By what the policy by row tells rows apart: loss under `vector` / loss without, of each row's
// window where it is smallest (ExplainedRatio).
absl::StatusOr<std::vector<double>> ExplainedRatios(Engine& engine,
                                                    const std::vector<TokenRow>& rows,
                                                    const SecretBuffer& vector);

// The adapter a job with `seed` starts from: A uniform as PEFT's kaiming_uniform(a = sqrt 5), B
// zero.
absl::StatusOr<Adapter> InitialAdapter(Engine& engine, const LoraConfig& lora, uint64_t seed);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_INSPECT_H_
