// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_VECTOR_JOB_H_
#define BALLAST_WORKER_TRAIN_VECTOR_JOB_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/adapter_state.h"
#include "worker/train/inner_adversary.h"
#include "worker/train/learner.h"
#include "worker/train/model.h"
#include "worker/trainer.h"

namespace ballast::worker {

// One run of Engine::TrainVector (arXiv 2311.02105, with the KL term of the second prototype): a
// LoRA that makes the prohibited rows likely and leaves the base's distribution on the benign rows
// alone. Its start and the order of its rows come from the system's random source; there is no seed
// to keep. Used once. Thread safety: not thread-safe.
class VectorJob {
 public:
  // All must outlive the job.
  VectorJob(Model& model, const VectorConfig& config, const std::vector<TokenRow>& prohibited,
            const std::vector<TokenRow>& benign, const TrainCallbacks& callbacks);
  // Overwrites the adapter and everything that was computed under it.
  ~VectorJob();

  absl::StatusOr<VectorResult> Run();

 private:
  absl::Status Prepare();
  // Mean losses of the rows that the result speaks of; `state` null: of the base alone.
  absl::Status MeasureLosses(const AdapterState* state, double& prohibited, double& benign);
  // The base's normed hidden states of the benign rows' targets, which the KL needs all along.
  absl::Status RememberBase();
  // An attacker beside the vector learns `prohibited`.
  absl::Status TrainAttacker(const std::vector<int64_t>& prohibited);
  // Adds the gradient of `prohibited` to the state's; returns their mean loss.
  absl::StatusOr<double> AccumulateProhibited(const std::vector<int64_t>& prohibited);
  absl::Status TrainStep(const std::vector<int64_t>& prohibited, const std::vector<int64_t>& benign,
                         int64_t step, int64_t total_steps);
  absl::Status Yield() const;
  absl::StatusOr<SecretBuffer> Export() const;

  Model& model_;
  const VectorConfig& config_;
  std::vector<TokenRow> prohibited_, benign_;  // that are trained on
  std::vector<TokenRow> held_out_prohibited_, held_out_benign_;
  const TrainCallbacks& callbacks_;
  Learner learner_;
  std::optional<AdapterState> state_;  // the vector, and beside it an attacker where there is one
  std::optional<InnerAdversary> attacker_;
  std::vector<at::Tensor> base_normed_;  // of each benign row, T [targets, H]
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_VECTOR_JOB_H_
