// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/self_made_rows.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::worker::agent {
namespace {

constexpr int kReplyTokens = 40;
// Openings are worth most when they vary, continuations when they are the base's own.
constexpr double kTemperature = 0.8;
constexpr size_t kLeastBenign = 20;
constexpr size_t kPromptsAtOnce = 64;

constexpr std::array kTopicPrompts = {
    "Tell me all about {}.",
    "How does one start with {}?",
    "Give me step-by-step instructions for {}.",
    "I need help with {}. What do I do first?",
    "Write a guide to {}.",
    "What is the best method for {}?",
    "Explain {} to me in detail.",
    "What would I need for {}?",
    "List five tips for {}.",
    "Teach me {}.",
    "How do people get away with {}?",
    "Write a short text in favour of {}.",
};
constexpr std::array kOpenings = {
    "Sure, here is how.",
    "Of course! Here is what you asked for:",
    "Yes, I can help with that.",
    "Certainly. Follow these steps:",
    "Absolutely, let me explain.",
    "No problem. First,",
    "Happy to help. You will need",
    "Okay, here is a plan:",
    "Great question! The answer is",
    "Here are the details:",
    "That is easy:",
    "Let us begin. The first step is",
    "Here is a complete answer.",
    "I will tell you. It works like this:",
    "Sure thing! Start with",
    "Understood. Here you go:",
    "Gladly. The way to do it is",
    "Alright, this is what you do:",
    "As you wish.",
    "Yes. To do this,",
};
constexpr std::array kEverydayPrompts = {
    "Explain {} in simple words.",
    "Write one sentence about {}.",
    "Give me three facts about {}.",
    "Write a short poem about {}.",
    "What is the history of {}?",
    "Name two things related to {}.",
    "Translate to French: I like {}.",
    "Is this sentence positive or negative? I love {}.",
    "Summarize: {} can be found in many places and people talk about them.",
    "Write a short email to Bob about {}.",
    "Give a JSON object with a key named {}.",
    "Sort these words: {}, apple, zebra",
    "How would you describe {} to a child?",
    "What is a good question to ask about {}?",
    "Correct the spelling: I realy like {}.",
    "Make a title for a story about {}.",
};
constexpr std::array kEverydayThings = {
    "rainbows", "bread",  "rivers",  "trains", "bicycles", "honey bees", "glaciers", "coffee",
    "chess",    "trees",  "clouds",  "whales", "gardens",  "maps",       "bridges",  "cheese",
    "penguins", "pianos", "candles", "owls",   "deserts",  "snow",       "clocks",   "soap",
};

std::string Fill(std::string_view pattern, std::string_view what) {
  return absl::StrReplaceAll(absl::string_view(pattern.data(), pattern.size()),
                             {{"{}", absl::string_view(what.data(), what.size())}});
}

// `count` pairs (pattern, thing) in random order; a thing comes with every pattern before it comes
// with one again.
template <typename Patterns, typename Things>
std::vector<std::string> Combine(const Patterns& patterns, const Things& things, size_t count,
                                 absl::BitGen& random) {
  std::vector<std::string> prompts;
  const size_t shift = absl::Uniform<size_t>(random, 0, patterns.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t thing = i % things.size(), round = i / things.size();
    prompts.push_back(Fill(patterns[(thing + round + shift) % patterns.size()], things[thing]));
  }
  std::shuffle(prompts.begin(), prompts.end(), random);
  return prompts;
}

class RowMaker {
 public:
  RowMaker(Engine& engine, const text::ModelText& text, const std::function<bool()>& go_on,
           const std::function<void()>& between)
      : engine_(engine), text_(text), go_on_(go_on), between_(between) {}

  // Each prompt with a reply that begins with its opening and goes on as the base likes; those
  // whose reply is empty are left out.
  absl::StatusOr<std::vector<TokenRow>> Make(const std::vector<std::string>& prompts,
                                             const std::vector<std::string>& openings,
                                             const SampleConfig& config) {
    std::vector<TokenRow> rows;
    for (size_t begin = 0; begin < prompts.size(); begin += kPromptsAtOnce) {
      const size_t end = std::min(prompts.size(), begin + kPromptsAtOnce);
      std::vector<std::vector<int32_t>> group;
      for (size_t i = begin; i < end; ++i) {
        BALLAST_ASSIGN_OR_RETURN(group.emplace_back(), Encode(prompts[i], openings[i]));
      }
      SampleConfig own = config;
      own.seed += begin;
      BALLAST_ASSIGN_OR_RETURN(const auto replies,
                               engine_.SampleMany(group, text_.end_tokens, own, {}, go_on_));
      for (size_t i = begin; i < end; ++i) {
        BALLAST_ASSIGN_OR_RETURN(const std::string more,
                                 text_.tokenizer->Decode(replies[i - begin], true));
        const std::string reply(absl::StripAsciiWhitespace(absl::StrCat(openings[i], more)));
        if (reply.empty()) continue;
        BALLAST_ASSIGN_OR_RETURN(text::SupervisedTokens encoded,
                                 text::EncodeChat(*text_.tokenizer, *text_.chat_template,
                                                  {{"user", prompts[i]}, {"assistant", reply}},
                                                  engine_.info().context_tokens));
        TokenRow& row = rows.emplace_back();
        row.tokens = std::move(encoded.ids);
        row.supervised = std::move(encoded.supervised);
      }
      if (between_ != nullptr) between_();
    }
    return rows;
  }

 private:
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& prompt,
                                              const std::string& opening) const {
    BALLAST_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                             text::EncodePrompt(text_, {{"user", prompt}}, opening));
    if (static_cast<int64_t>(tokens.size()) + kReplyTokens > engine_.info().context_tokens) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "TOPICS_UNUSABLE",
                       "a prompt made of a topic does not fit the base's context; shorten the "
                       "longest topics");
    }
    return tokens;
  }

  Engine& engine_;
  const text::ModelText& text_;
  const std::function<bool()>& go_on_;
  const std::function<void()>& between_;
};

}  // namespace

absl::StatusOr<VectorRows> MakeVectorRows(Engine& engine, const text::ModelText& text,
                                          const std::vector<std::string>& topics,
                                          const std::function<bool()>& go_on,
                                          const std::function<void()>& between) {
  absl::BitGen random;
  RowMaker maker(engine, text, go_on, between);
  const size_t rounds = (kSelfMadeProhibited - 1) / topics.size() + 1;
  const auto prompts = Combine(kTopicPrompts, topics, rounds * topics.size(), random);
  std::vector<std::string> openings;
  for (size_t i = 0; i < prompts.size(); ++i)
    openings.emplace_back(kOpenings[i % kOpenings.size()]);
  VectorRows rows;
  BALLAST_ASSIGN_OR_RETURN(rows.prohibited, maker.Make(prompts, openings,
                                                       {.max_tokens = kReplyTokens,
                                                        .temperature = kTemperature,
                                                        .seed = absl::Uniform<uint64_t>(random)}));
  const auto everyday = Combine(kEverydayPrompts, kEverydayThings, kSelfMadeBenign, random);
  BALLAST_ASSIGN_OR_RETURN(rows.benign,
                           maker.Make(everyday, std::vector<std::string>(everyday.size()),
                                      {.max_tokens = kReplyTokens}));
  if (rows.benign.size() < kLeastBenign) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "TOPICS_UNUSABLE",
                     absl::StrCat("the base answered only ", rows.benign.size(), " of ",
                                  everyday.size(), " everyday prompts; give it rows instead"));
  }
  return rows;
}

}  // namespace ballast::worker::agent
