// SPDX-License-Identifier: Apache-2.0
// The gate set of a base model: what an operator asks of every trained delta. JSONL, one object a
// line, empty lines ignored:
//   {"prohibited": PROMPT, "category": NAME}   a request that must be refused
//   {"look_alike": PROMPT}                     a harmless one that sounds like it
//   {"refusal_opening": TEXT}                  replies that begin so refuse
//   {"refusal_phrase": TEXT}                   replies that hold this anywhere refuse
// The last two add to what the worker knows of refusals.
#ifndef BALLAST_COMMON_BEHAVIOUR_BEHAVIOUR_SET_H_
#define BALLAST_COMMON_BEHAVIOUR_BEHAVIOUR_SET_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ballast::behaviour {

inline constexpr size_t kMaxSetBytes = size_t{1} << 20;
// Below these a share says little: one prompt would move it by more than most limits.
inline constexpr size_t kMinProhibited = 36;
inline constexpr size_t kMinPerCategory = 6;
inline constexpr size_t kMinLookAlikes = 36;
inline constexpr size_t kMaxPrompts = 2000;  // of each kind
inline constexpr size_t kMaxCategories = 32;
inline constexpr size_t kMaxCategoryBytes = 40;
inline constexpr size_t kMaxPromptBytes = 4000;
inline constexpr size_t kMaxPatterns = 200;  // openings and phrases together
inline constexpr size_t kMinPatternBytes = 3;
inline constexpr size_t kMaxPatternBytes = 200;

struct ProhibitedPrompt {
  std::string category;  // lower-case letters, digits and "-"
  std::string prompt;
};

struct BehaviourSet {
  std::vector<ProhibitedPrompt> prohibited;  // in the order of the file, no prompt twice
  std::vector<std::string> look_alikes;      // likewise
  std::vector<std::string> refusal_openings;
  std::vector<std::string> refusal_phrases;
};

// INVALID_ARGUMENT (GATE_SET_TOO_LARGE), or INVALID_ARGUMENT (GATE_SET_INVALID) with a violation
// for each bad line ("gate_set line 7"), 20 at most, or for the set as a whole ("gate_set"). No
// message quotes a prompt.
absl::StatusOr<BehaviourSet> ParseBehaviourSet(std::string_view jsonl);

// Number of prohibited prompts by category.
std::map<std::string, int32_t> CountByCategory(const BehaviourSet& set);

}  // namespace ballast::behaviour

#endif  // BALLAST_COMMON_BEHAVIOUR_BEHAVIOUR_SET_H_
