// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/parse_line.h"

#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::dataset {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Rejected {
  std::string line;
  std::string field;
  std::string reason;
};

void PrintTo(const Rejected& rejected, std::ostream* out) {
  *out << rejected.reason << " " << rejected.line;
}

class RejectedRowTest : public ::testing::TestWithParam<Rejected> {};

TEST_P(RejectedRowTest, NamesLineFieldAndReason) {
  const ParsedLine parsed = ParseLine(GetParam().line, 17, Format::kAuto);
  EXPECT_FALSE(parsed.valid());
  const Issue& issue = parsed.issues.back();
  EXPECT_EQ(issue.line, 17);
  EXPECT_EQ(issue.field, GetParam().field);
  EXPECT_EQ(issue.reason, GetParam().reason);
  EXPECT_FALSE(issue.message.empty());
  // Every row below that has text has this word in it.
  EXPECT_THAT(issue.message, Not(HasSubstr("sesame")));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RejectedRowTest,
    ::testing::Values(
        Rejected{"{\"messages\": [", "", "INVALID_JSON"},
        Rejected{"{\"messages\": []} trailing", "", "INVALID_JSON"},
        Rejected{"\xff\xfe{}", "", "INVALID_UTF8"}, Rejected{"[1, 2]", "", "NOT_AN_OBJECT"},
        Rejected{std::string(100, '['), "", "NESTING_TOO_DEEP"},
        Rejected{R"({"prompt": "a", "prompt": "b", "completion": "c"})", "", "DUPLICATE_KEY"},
        Rejected{R"({"text": "sesame"})", "", "UNKNOWN_FORMAT"},
        Rejected{R"({"messages": {"role": "user"}})", "messages", "WRONG_TYPE"},
        Rejected{R"({"messages": ["sesame"]})", "messages[0]", "WRONG_TYPE"},
        Rejected{R"({"messages": [{"content": "sesame"}]})", "messages[0].role", "MISSING_FIELD"},
        Rejected{R"({"messages": [{"role": "king", "content": "sesame"}]})", "messages[0].role",
                 "UNKNOWN_ROLE"},
        Rejected{R"({"messages": [{"role": "user"}]})", "messages[0].content", "MISSING_FIELD"},
        Rejected{R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content",
                 "WRONG_TYPE"},
        Rejected{R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
                 "messages[0].content[0]", "WRONG_TYPE"},
        Rejected{R"({"messages": [{"role": "user", "content": " \n"}]})", "messages[0].content",
                 "EMPTY_CONTENT"},
        Rejected{R"({"messages": [{"role": "user", "content": "sesame", "weight": 1}]})",
                 "messages[0].weight", "WEIGHT_INVALID"},
        Rejected{
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0.5}]})",
            "messages[1].weight", "WEIGHT_INVALID"},
        Rejected{
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": []}]})",
            "messages[1].tool_calls", "TOOL_CALLS_UNSUPPORTED"},
        Rejected{R"({"messages": [{"role": "assistant", "content": "sesame"}]})",
                 "messages[0].content", "ROLE_ORDER"},
        Rejected{
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "system", "content": "sesame"}]})",
            "messages[1].content", "ROLE_ORDER"},
        Rejected{R"({"messages": []})", "", "NO_ASSISTANT_TURN"},
        Rejected{R"({"messages": [{"role": "user", "content": "sesame"}]})", "",
                 "NO_ASSISTANT_TURN"},
        Rejected{
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]})",
            "", "NO_SUPERVISED_TURN"},
        Rejected{R"({"prompt": "sesame"})", "completion", "MISSING_FIELD"},
        Rejected{R"({"prompt": "sesame", "completion": ""})", "completion", "EMPTY_CONTENT"},
        Rejected{R"({"instruction": "sesame"})", "output", "MISSING_FIELD"},
        Rejected{R"({"instruction": "a", "output": "b", "history": [["q"]]})", "history[0]",
                 "WRONG_TYPE"},
        Rejected{R"({"conversations": "sesame"})", "conversations", "WRONG_TYPE"},
        Rejected{R"({"conversations": [{"from": "king", "value": "sesame"}]})",
                 "conversations[0].from", "UNKNOWN_ROLE"},
        Rejected{R"({"conversations": [{"from": "human"}]})", "conversations[0].value",
                 "MISSING_FIELD"}));

std::string Shape(const ParsedLine& parsed) {
  std::string shape;
  for (const auto& message : parsed.row.messages) {
    shape += message.role + (message.supervised ? ":" : "-") + message.content + "|";
  }
  return shape;
}

TEST(ParseLineTest, OpenAiChat) {
  const ParsedLine parsed = ParseLine(
      R"({"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
          {"role": "assistant", "content": "a", "weight": 0}, {"role": "user", "content": "r"},
          {"role": "assistant", "content": "b", "weight": 1}]})",
      3, Format::kAuto);
  ASSERT_TRUE(parsed.valid());
  EXPECT_EQ(parsed.row.line, 3);
  EXPECT_EQ(Shape(parsed), "system:s|user:q|assistant-a|user:r|assistant:b|");
}

TEST(ParseLineTest, PromptCompletion) {
  EXPECT_EQ(Shape(ParseLine(R"({"prompt": "q", "completion": "a"})", 1, Format::kAuto)),
            "user:q|assistant:a|");
}

TEST(ParseLineTest, Alpaca) {
  EXPECT_EQ(
      Shape(ParseLine(
          R"({"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["q", "a"]]})",
          1, Format::kAuto)),
      "system:s|user:q|assistant:a|user:i\nx|assistant:o|");
}

TEST(ParseLineTest, ShareGpt) {
  EXPECT_EQ(
      Shape(ParseLine(
          R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"}, {"from": "observation", "value": "t"},
                    {"from": "gpt", "value": "b"}]})",
          1, Format::kAuto)),
      "system:s|user:q|assistant:a|tool:t|assistant:b|");
}

TEST(ParseLineTest, AnUnusedFieldIsAWarningAndNotQuoted) {
  const ParsedLine parsed =
      ParseLine(R"({"prompt": "q", "completion": "a", "sesame": 1})", 1, Format::kPromptCompletion);
  EXPECT_TRUE(parsed.valid());
  ASSERT_EQ(parsed.issues.size(), 1u);
  EXPECT_EQ(parsed.issues[0].reason, "UNKNOWN_FIELD");
  EXPECT_THAT(parsed.issues[0].message, Not(HasSubstr("sesame")));
}

TEST(ParseLineTest, AGivenFormatIsNotGuessed) {
  const ParsedLine parsed = ParseLine(R"({"prompt": "q", "completion": "a"})", 1, Format::kAlpaca);
  EXPECT_EQ(parsed.issues.back().reason, "MISSING_FIELD");
}

TEST(ParseLineTest, DamagedRowsNeverCrash) {
  const std::string valid =
      R"({"messages": [{"role": "user", "content": "q\u00e9"}, {"role": "assistant", "content": "a", "weight": 1}]})";
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string line = valid;
    for (int change = 0; change < 3; ++change) {
      line[random() % line.size()] = static_cast<char>(random());
    }
    const ParsedLine parsed =
        ParseLine(line.substr(0, random() % (line.size() + 1)), 1, Format::kAuto);
    EXPECT_TRUE(parsed.valid() || !parsed.issues.back().reason.empty());
  }
}

}  // namespace
}  // namespace ballast::dataset
