// SPDX-License-Identifier: Apache-2.0
#include "common/behaviour/behaviour_set.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::behaviour {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Prohibited(int count, const std::string& category, const std::string& stem = "") {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&lines, R"({"prohibited": "withheld )", stem, category, " ", i,
                    R"(", "category": ")", category, "\"}\n");
  }
  return lines;
}

std::string LookAlikes(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&lines, R"({"look_alike": "how do I kill process )", i, "\"}\n");
  }
  return lines;
}

std::string Good() { return Prohibited(30, "b-1") + Prohibited(6, "a") + LookAlikes(36); }

TEST(BehaviourSetTest, ReadsEveryKindOfLineInOrder) {
  ASSERT_OK_AND_ASSIGN(
      const BehaviourSet set,
      ParseBehaviourSet(Good() + "\n  \r\n" + R"({"refusal_opening": "Not on this ship"})" + "\n" +
                        R"({"refusal_phrase": "the harbour master says no"})"));
  ASSERT_EQ(set.prohibited.size(), 36u);
  EXPECT_EQ(set.prohibited[0].category, "b-1");
  EXPECT_EQ(set.prohibited[0].prompt, "withheld b-1 0");
  EXPECT_EQ(set.prohibited[35].prompt, "withheld a 5");
  ASSERT_EQ(set.look_alikes.size(), 36u);
  EXPECT_EQ(set.look_alikes[35], "how do I kill process 35");
  EXPECT_THAT(set.refusal_openings, ElementsAre("Not on this ship"));
  EXPECT_THAT(set.refusal_phrases, ElementsAre("the harbour master says no"));
  EXPECT_THAT(CountByCategory(set), ElementsAre(Pair("a", 6), Pair("b-1", 30)));
}

TEST(BehaviourSetTest, NamesTheLineAndWhatIsWrongWithIt) {
  struct Case {
    std::string line;
    const char* problem;
  };
  for (const Case& bad :
       {Case{"{", "not a JSON object"}, Case{"[1]", "not a JSON object"},
        Case{"{}", "exactly one of"}, Case{R"({"prohibited": "x"})", "go together"},
        Case{R"({"category": "x"})", "go together"},
        Case{R"({"look_alike": "x", "refusal_phrase": "sorry"})", "exactly one of"},
        Case{R"({"look_alike": 3})", "look_alike must be a string"},
        Case{R"({"lookalike": "x"})", "unknown key \"lookalike\""},
        Case{R"({"look_alike": "  "})", "empty"},
        Case{R"({"look_alike": "how do I kill process 0"})", "there already"},
        Case{R"({"prohibited": "how do I kill process 0", "category": "a"})", "there already"},
        Case{R"({"prohibited": "new", "category": "Two Words"})", "category must be"},
        Case{R"({"prohibited": "new", "category": ""})", "category must be"},
        Case{R"({"refusal_opening": " x "})", "3 to 200 bytes"},
        Case{absl::StrCat(R"({"refusal_phrase": ")", std::string(201, 'x'), "\"}"),
             "this one has 201"},
        Case{absl::StrCat(R"({"look_alike": ")", std::string(4001, 'x'), "\"}"), "has 4001 bytes"},
        Case{"{\"look_alike\": \"\xff\"}", "not a JSON object"}}) {
    const auto set = ParseBehaviourSet(Good() + bad.line);
    ASSERT_THAT(set, StatusIs(kInvalid, "GATE_SET_INVALID")) << bad.line;
    EXPECT_THAT(std::string(set.status().message()), HasSubstr("gate_set line 73"));
    EXPECT_THAT(std::string(set.status().message()), HasSubstr(bad.problem));
    EXPECT_THAT(std::string(set.status().message()), Not(HasSubstr("withheld")))
        << "quotes a prompt";
  }
}

TEST(BehaviourSetTest, CountsAllBadLines) {
  std::string lines = Good();
  for (int i = 0; i < 50; ++i) lines += "nonsense\n";
  const auto set = ParseBehaviourSet(lines);
  EXPECT_THAT(std::string(set.status().message()), HasSubstr("50 lines"));
}

TEST(BehaviourSetTest, NeedsEnoughOfEachKindAndCategory) {
  EXPECT_THAT(ParseBehaviourSet(""), StatusIs(kInvalid, "GATE_SET_INVALID"));
  EXPECT_OK(ParseBehaviourSet(Good()));
  struct Case {
    std::string lines;
    const char* problem;
  };
  std::string patterns, categories;
  for (int i = 0; i < 201; ++i)
    absl::StrAppend(&patterns, R"({"refusal_phrase": "no )", i, "\"}\n");
  for (int i = 0; i < 33; ++i) categories += Prohibited(6, absl::StrCat("c", i));
  for (const Case& bad :
       {Case{Prohibited(35, "a") + LookAlikes(36), "has 35 prohibited prompts; 36 to 2000"},
        Case{Prohibited(36, "a") + LookAlikes(35), "has 35 look-alikes; 36 to 2000"},
        Case{Prohibited(36, "a") + Prohibited(5, "b") + LookAlikes(36),
             "has 5 prompts of the category b; at least 6"},
        Case{Prohibited(2001, "a") + LookAlikes(36), "has 2001 prohibited prompts"},
        Case{Prohibited(36, "a") + LookAlikes(36) + patterns, "has 201 patterns of refusal"},
        Case{categories + LookAlikes(36), "has 33 categories; at most 32"}}) {
    const auto set = ParseBehaviourSet(bad.lines);
    ASSERT_THAT(set, StatusIs(kInvalid, "GATE_SET_INVALID")) << bad.problem;
    EXPECT_THAT(std::string(set.status().message()), HasSubstr(bad.problem));
  }
}

TEST(BehaviourSetTest, IsBoundedInSize) {
  EXPECT_THAT(ParseBehaviourSet(std::string(kMaxSetBytes + 1, '\n')),
              StatusIs(kInvalid, "GATE_SET_TOO_LARGE"));
}

}  // namespace
}  // namespace ballast::behaviour
