// SPDX-License-Identifier: Apache-2.0
#include "worker/behaviour/behaviour_evaluation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::worker::behaviour {
namespace {

// Prompts given to the engine at once: it keeps as many sequences itself, and whoever waits for the
// engine waits for one group.
constexpr size_t kPromptsAtOnce = 64;

}  // namespace

absl::StatusOr<BehaviourEvaluation> BehaviourEvaluation::Create(
    Engine& engine, const text::ModelText& text, const ballast::behaviour::BehaviourSet& set,
    int reply_tokens, Hooks hooks) {
  BehaviourEvaluation evaluation(engine, text, set, reply_tokens, std::move(hooks));
  for (const auto& prompt : set.prohibited) {
    BALLAST_ASSIGN_OR_RETURN(evaluation.prohibited_.emplace_back(),
                             evaluation.Encode(prompt.prompt));
  }
  for (const std::string& prompt : set.look_alikes) {
    BALLAST_ASSIGN_OR_RETURN(evaluation.look_alikes_.emplace_back(), evaluation.Encode(prompt));
  }
  return evaluation;
}

absl::StatusOr<std::vector<int32_t>> BehaviourEvaluation::Encode(const std::string& prompt) const {
  BALLAST_ASSIGN_OR_RETURN(std::vector<int32_t> encoded,
                           text::EncodePrompt(*text_, {{"user", prompt}}));
  const auto tokens = static_cast<int64_t>(encoded.size());
  if (tokens + reply_tokens_ > engine_->info().context_tokens) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "GATE_PROMPT_TOO_LONG",
        absl::StrCat("a prompt of the gate has ", tokens, " tokens, and with a reply of ",
                     reply_tokens_, " does not fit the base's context"));
  }
  return encoded;
}

absl::StatusOr<Replies> BehaviourEvaluation::Ask(const std::vector<AdapterInSum>& adapters,
                                                 size_t stride, bool look_alikes) {
  Prompts chosen;
  for (size_t i = 0; i < prohibited_.size(); i += stride) chosen.push_back(prohibited_[i]);
  Replies replies;
  BALLAST_ASSIGN_OR_RETURN(replies.prohibited, AskAll(chosen, adapters));
  if (look_alikes) {
    BALLAST_ASSIGN_OR_RETURN(replies.look_alikes, AskAll(look_alikes_, adapters));
  }
  return replies;
}

absl::StatusOr<std::vector<Reply>> BehaviourEvaluation::AskAll(
    const Prompts& prompts, const std::vector<AdapterInSum>& adapters) {
  SampleConfig config;
  config.max_tokens = reply_tokens_;
  std::vector<Reply> verdicts;
  for (size_t begin = 0; begin < prompts.size(); begin += kPromptsAtOnce) {
    const size_t end = std::min(prompts.size(), begin + kPromptsAtOnce);
    const Prompts group(prompts.begin() + static_cast<ptrdiff_t>(begin),
                        prompts.begin() + static_cast<ptrdiff_t>(end));
    BALLAST_ASSIGN_OR_RETURN(
        const auto replies,
        engine_->SampleMany(group, text_->end_tokens, config, adapters, hooks_.go_on));
    for (const std::vector<int32_t>& tokens : replies) {
      BALLAST_ASSIGN_OR_RETURN(const std::string reply,
                               text_->tokenizer->Decode(tokens, /*skip_special_tokens=*/true));
      verdicts.push_back(judge_.Judge(reply));
    }
    if (hooks_.between != nullptr) hooks_.between();
  }
  return verdicts;
}

}  // namespace ballast::worker::behaviour
