// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_TRAIN_JOB_H_
#define BALLAST_WORKER_TRAIN_TRAIN_JOB_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/adapter_state.h"
#include "worker/train/checkpoint.h"
#include "worker/train/learner.h"
#include "worker/train/model.h"
#include "worker/trainer.h"

namespace ballast::worker {

// One run of Engine::Train, from request to result. Used once. Thread safety: not thread-safe.
class TrainJob {
 public:
  // All must outlive the job.
  TrainJob(Model& model, const TrainRequest& request, const TrainCallbacks& callbacks);
  // Overwrites what was computed under the vector.
  ~TrainJob();

  absl::StatusOr<TrainResult> Run();

 private:
  absl::Status Prepare();
  std::vector<int64_t> SafetyRowsOf(int64_t epoch) const;
  absl::Status AssignGroups();
  absl::Status TrainEpoch(int64_t epoch);
  absl::Status TrainStep(const std::vector<std::vector<const TokenRow*>>& micro_batches,
                         const std::vector<int>& groups);
  // The order between micro-batches: fails with CANCELLED or ABORTED on a stop.
  absl::Status Yield();
  absl::Status EvaluateIfDue();
  void SaveCheckpoint();
  LinearWeights& WeightsOf(int group) { return group == 1 ? *merged_ : *model_.clean; }

  Model& model_;
  const TrainRequest& request_;
  const TrainConfig& config_;
  const TrainCallbacks& callbacks_;
  Learner learner_;
  std::optional<AdapterState> state_;
  std::unique_ptr<LinearWeights> merged_;  // null without a vector
  std::vector<const TokenRow*> rows_;      // the customer's, then safety rows that an epoch draws
  std::vector<int64_t> safety_places_;     // of each safety row: its place in rows_, or -1
  std::vector<int> groups_;                // of each row: 1 with the vector, 0 without
  std::vector<const TokenRow*> training_sample_, validation_sample_;
  std::string digest_;
  Progress progress_;
  std::vector<Evaluation> evaluations_;
};

// INVALID_ARGUMENT with a field violation for a setting out of range.
absl::Status CheckTrainConfig(const TrainConfig& config, const artifact::ModelConfig& model);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_TRAIN_JOB_H_
