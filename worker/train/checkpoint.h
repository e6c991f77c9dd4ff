// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_CHECKPOINT_H_
#define BALLAST_WORKER_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/model_config.h"
#include "worker/train/lora.h"
#include "worker/trainer.h"

namespace ballast::worker {

// All that a job needs to go on as if it had never stopped. What follows from the request (plan,
// groups of the vector policy) is not in it.
struct Checkpoint {
  int64_t step = 0;
  int64_t trained_tokens = 0;
  std::vector<Evaluation> evaluations;
  std::vector<float> parameters, m, v;  // flat, as the layout
};

// Identifies what a checkpoint belongs to: configuration, rows, model and precision. Independent of
// the vector.
std::string RequestDigest(const TrainRequest& request, const artifact::ModelConfig& model,
                          std::string_view precision);

// Safetensors: the adapter under its PEFT names, then the moments, flat; the rest as metadata.
std::string WriteCheckpoint(const LoraLayout& layout, const Checkpoint& checkpoint,
                            std::string_view request_digest);

// FAILED_PRECONDITION CHECKPOINT_MISMATCH for another request's; DATA_LOSS CHECKPOINT_CORRUPT.
absl::StatusOr<Checkpoint> ReadCheckpoint(std::string_view bytes, const LoraLayout& layout,
                                          std::string_view request_digest);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_CHECKPOINT_H_
