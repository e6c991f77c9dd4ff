// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al., "RoFormer", section 3.2.2).
#ifndef BALLAST_WORKER_TRAIN_ROTARY_H_
#define BALLAST_WORKER_TRAIN_ROTARY_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/artifact/model_config.h"

namespace ballast::worker {

// Tables of a rotary embedding: float32 [positions, D / 2].
struct RotaryTable {
  at::Tensor cos, sin;
};

// Inverse frequencies of the rotary embedding, D / 2 of them, computed in float32 as transformers
// does.
std::vector<float> RotaryFrequencies(const artifact::ModelConfig& config);

// Cosine and sine of every position of the context times every inverse frequency.
RotaryTable MakeRotaryTable(const artifact::ModelConfig& config, at::Device device);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_ROTARY_H_
