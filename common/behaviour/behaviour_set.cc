// SPDX-License-Identifier: Apache-2.0
#include "common/behaviour/behaviour_set.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/utf8.h"
#include "nlohmann/json.hpp"

namespace ballast::behaviour {
namespace {

using Json = nlohmann::json;

constexpr char kReason[] = "GATE_SET_INVALID";
constexpr size_t kMaxViolations = 20;

bool IsCategory(const std::string& name) {
  if (name.empty() || name.size() > kMaxCategoryBytes) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

bool IsBlank(const std::string& text) { return absl::StripAsciiWhitespace(text).empty(); }

// Reads the lines one after another; each gives an empty string or what is wrong with it.
class Reader {
 public:
  std::string Read(absl::string_view line) {
    const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return "is not a JSON object";
    for (const auto& [key, value] : json.items()) {
      if (key != "prohibited" && key != "category" && key != "look_alike" &&
          key != "refusal_opening" && key != "refusal_phrase") {
        return absl::StrCat("has the unknown key \"", ValidUtf8(key, 40), "\"");
      }
      if (!value.is_string()) return absl::StrCat(key, " must be a string");
    }
    const bool prohibited = json.contains("prohibited");
    if (prohibited != json.contains("category")) {
      return "\"prohibited\" and \"category\" go together";
    }
    if (json.size() != (prohibited ? 2u : 1u)) {
      return "must have exactly one of prohibited (with category), look_alike, refusal_opening "
             "and refusal_phrase";
    }
    if (prohibited) return AddProhibited(json["category"], json["prohibited"]);
    if (json.contains("look_alike")) return AddLookAlike(json["look_alike"]);
    if (json.contains("refusal_opening")) {
      return AddPattern(json["refusal_opening"], set_.refusal_openings);
    }
    return AddPattern(json["refusal_phrase"], set_.refusal_phrases);
  }

  const BehaviourSet& set() const { return set_; }
  BehaviourSet Take() { return std::move(set_); }

 private:
  std::string CheckPrompt(const std::string& prompt) {
    if (IsBlank(prompt)) return "the prompt is empty";
    if (prompt.size() > kMaxPromptBytes) {
      return absl::StrCat("the prompt has ", prompt.size(), " bytes; at most ", kMaxPromptBytes,
                          " are allowed");
    }
    if (!prompts_.insert(prompt).second) return "the prompt is there already";
    return "";
  }

  std::string AddProhibited(const std::string& category, const std::string& prompt) {
    if (!IsCategory(category)) {
      return absl::StrCat("category must be 1 to ", kMaxCategoryBytes,
                          " lower-case letters, digits and \"-\"");
    }
    std::string problem = CheckPrompt(prompt);
    if (problem.empty()) set_.prohibited.push_back({category, prompt});
    return problem;
  }

  std::string AddLookAlike(const std::string& prompt) {
    std::string problem = CheckPrompt(prompt);
    if (problem.empty()) set_.look_alikes.push_back(prompt);
    return problem;
  }

  static std::string AddPattern(const std::string& text, std::vector<std::string>& patterns) {
    const size_t bytes = absl::StripAsciiWhitespace(text).size();
    if (bytes < kMinPatternBytes || bytes > kMaxPatternBytes) {
      return absl::StrCat("a pattern has ", kMinPatternBytes, " to ", kMaxPatternBytes,
                          " bytes beside white space; this one has ", bytes);
    }
    patterns.push_back(text);
    return "";
  }

  BehaviourSet set_;
  std::set<std::string> prompts_;
};

// What is wrong with the set as a whole.
std::vector<std::string> ProblemsOf(const BehaviourSet& set) {
  std::vector<std::string> problems;
  const auto count = [&](const char* what, size_t number, size_t least, size_t most) {
    if (number >= least && number <= most) return;
    problems.push_back(
        absl::StrCat("has ", number, " ", what, "; ", least, " to ", most, " are needed"));
  };
  count("prohibited prompts", set.prohibited.size(), kMinProhibited, kMaxPrompts);
  count("look-alikes", set.look_alikes.size(), kMinLookAlikes, kMaxPrompts);
  count("patterns of refusal", set.refusal_openings.size() + set.refusal_phrases.size(), 0,
        kMaxPatterns);
  const auto by_category = CountByCategory(set);
  if (by_category.size() > kMaxCategories) {
    problems.push_back(absl::StrCat("has ", by_category.size(), " categories; at most ",
                                    kMaxCategories, " are allowed"));
  }
  for (const auto& [category, prompts] : by_category) {
    if (static_cast<size_t>(prompts) >= kMinPerCategory) continue;
    problems.push_back(absl::StrCat("has ", prompts, " prompts of the category ", category,
                                    "; at least ", kMinPerCategory, " are needed"));
  }
  return problems;
}

}  // namespace

absl::StatusOr<BehaviourSet> ParseBehaviourSet(std::string_view jsonl) {
  if (jsonl.size() > kMaxSetBytes) {
    return FieldError("gate_set", "GATE_SET_TOO_LARGE",
                      absl::StrCat("the gate set has ", jsonl.size(), " bytes; at most ",
                                   kMaxSetBytes, " are allowed"));
  }
  Reader reader;
  std::vector<std::pair<std::string, std::string>> violations;
  int64_t number = 0;
  int64_t bad = 0;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(jsonl.data(), jsonl.size()), '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    std::string problem = reader.Read(line);
    if (problem.empty()) continue;
    if (++bad <= static_cast<int64_t>(kMaxViolations)) {
      violations.emplace_back(absl::StrCat("gate_set line ", number), std::move(problem));
    }
  }
  if (bad > 0) {
    return FieldErrors(kReason,
                       absl::StrCat(bad, bad == 1 ? " line" : " lines",
                                    " of the gate set cannot be used, the first at ",
                                    violations[0].first, ": it ", violations[0].second),
                       violations);
  }
  std::string all;
  for (std::string& problem : ProblemsOf(reader.set())) {
    absl::StrAppend(&all, all.empty() ? "" : "; ", "the gate set ", problem);
    violations.emplace_back("gate_set", std::move(problem));
  }
  if (!violations.empty()) return FieldErrors(kReason, all, violations);
  return reader.Take();
}

std::map<std::string, int32_t> CountByCategory(const BehaviourSet& set) {
  std::map<std::string, int32_t> counts;
  for (const ProhibitedPrompt& prompt : set.prohibited) ++counts[prompt.category];
  return counts;
}

}  // namespace ballast::behaviour
