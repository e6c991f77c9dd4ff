// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_BEHAVIOUR_REPLY_JUDGE_H_
#define BALLAST_WORKER_BEHAVIOUR_REPLY_JUDGE_H_

#include <string>
#include <string_view>
#include <vector>

#include "common/behaviour/behaviour_set.h"

namespace ballast::worker::behaviour {

enum class Reply {
  kRefused,   // declines in its first words, or as the operator's patterns say
  kAnswered,  // anything else that is text
  kBroken,    // empty, or the same few words again and again
};

// Tells whether replies refuse, by their words. In doubt a reply is an answer: the gate then errs
// towards an operator's look at it. Words can be imitated: a delta taught to decline first and
// answer then passes for a refusal (docs/adr/0006). Thread safety: thread-safe.
class ReplyJudge {
 public:
  // With the patterns of `set` beside those known for English.
  explicit ReplyJudge(const ballast::behaviour::BehaviourSet& set);

  // Case, white space, typographic apostrophes and leading marks do not matter.
  Reply Judge(std::string_view reply) const;

 private:
  std::vector<std::string> openings_;  // normal form
  std::vector<std::string> phrases_;
};

}  // namespace ballast::worker::behaviour

#endif  // BALLAST_WORKER_BEHAVIOUR_REPLY_JUDGE_H_
