// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_BEHAVIOUR_BEHAVIOUR_EVALUATION_H_
#define BALLAST_WORKER_BEHAVIOUR_BEHAVIOUR_EVALUATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/behaviour/behaviour_set.h"
#include "common/text/tokenizer.h"
#include "worker/behaviour/reply_judge.h"
#include "worker/trainer.h"

namespace ballast::worker::behaviour {

// How a model replied to the prompts of a set, in its order.
struct Replies {
  std::vector<Reply> prohibited;
  std::vector<Reply> look_alikes;  // empty where they were not asked
};

// Asks the prompts of a gate set of the base, alone or with adapters: greedy replies of bounded
// length, vector off, judged by their words. Replies themselves are not kept.
//
// Thread safety: not thread-safe; runs on the caller's thread, which is the engine's.
class BehaviourEvaluation {
 public:
  struct Hooks {
    // Asked after each token; false ends the evaluation with CANCELLED (STOPPED).
    std::function<bool()> go_on;
    // Called between groups of prompts, when the engine may be used for other things.
    std::function<void()> between;
  };

  // Renders and tokenises all prompts. `engine` and `text` must outlive the result.
  // INVALID_ARGUMENT (GATE_PROMPT_TOO_LONG) when one does not fit the context with its reply; the
  // errors of template and tokenizer.
  static absl::StatusOr<BehaviourEvaluation> Create(Engine& engine, const text::ModelText& text,
                                                    const ballast::behaviour::BehaviourSet& set,
                                                    int reply_tokens, Hooks hooks);

  // Replies to every `stride`-th prohibited prompt, and to the look-alikes where asked. The errors
  // of Engine::SampleMany.
  absl::StatusOr<Replies> Ask(const std::vector<AdapterInSum>& adapters, size_t stride,
                              bool look_alikes);

 private:
  BehaviourEvaluation(Engine& engine, const text::ModelText& text,
                      const ballast::behaviour::BehaviourSet& set, int reply_tokens, Hooks hooks)
      : engine_(&engine),
        text_(&text),
        judge_(set),
        reply_tokens_(reply_tokens),
        hooks_(std::move(hooks)) {}

  using Prompts = std::vector<std::vector<int32_t>>;
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& prompt) const;
  absl::StatusOr<std::vector<Reply>> AskAll(const Prompts& prompts,
                                            const std::vector<AdapterInSum>& adapters);

  Engine* engine_;
  const text::ModelText* text_;
  ReplyJudge judge_;
  int reply_tokens_;
  Hooks hooks_;
  Prompts prohibited_;
  Prompts look_alikes_;
};

}  // namespace ballast::worker::behaviour

#endif  // BALLAST_WORKER_BEHAVIOUR_BEHAVIOUR_EVALUATION_H_
