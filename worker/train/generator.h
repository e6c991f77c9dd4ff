// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_GENERATOR_H_
#define BALLAST_WORKER_TRAIN_GENERATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "worker/train/decoder.h"
#include "worker/train/model.h"
#include "worker/trainer.h"

namespace ballast::worker {

// Continues each of `prompts` until one of `end_tokens` (not passed on), `config.max_tokens` tokens
// or a false from `token`, which gets the prompt's index with each new token. As many prompts as
// fit are generated together; a finished one makes room for the next. What all prompts begin with
// is computed once. Prompt i draws from the random stream i of the seed, so that a reply does not
// depend on which others are asked for.
// Requires: every prompt has a token and, with max_tokens, fits the model's context.
void Generate(const Model& model, const std::vector<std::vector<int32_t>>& prompts,
              const std::vector<int32_t>& end_tokens, const SampleConfig& config,
              std::vector<AppliedAdapter> adapters,
              const std::function<bool(size_t, int32_t)>& token);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_GENERATOR_H_
