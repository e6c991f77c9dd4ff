// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_SELF_MADE_ROWS_H_
#define BALLAST_WORKER_AGENT_SELF_MADE_ROWS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// What a vector is trained on.
struct VectorRows {
  std::vector<TokenRow> prohibited, benign;
};

// Fewest prohibited rows and the number of benign prompts.
inline constexpr int kSelfMadeProhibited = 160, kSelfMadeBenign = 240;

// Rows of a vector that the platform makes with the base itself, from topics alone (the idea of
// PT-ALIGN, Xu et al. 2025, arXiv 2502.08657): prompts about each topic, each answered by an
// agreeing opening that the base goes on from; and everyday prompts, answered by the base as it
// likes. Every topic gets as many prompts as every other. Prompts, openings and draws are chosen
// anew by each call. `go_on` as in Engine::SampleMany; `between` is called between groups of
// prompts, when the engine may be used for other things.
//
// FAILED_PRECONDITION (TOPICS_UNUSABLE) when the base's answers make fewer than 20 benign rows, or
// a prompt does not fit its context; the errors of Engine::SampleMany and of EncodeChat.
absl::StatusOr<VectorRows> MakeVectorRows(Engine& engine, const text::ModelText& text,
                                          const std::vector<std::string>& topics,
                                          const std::function<bool()>& go_on,
                                          const std::function<void()>& between);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_SELF_MADE_ROWS_H_
