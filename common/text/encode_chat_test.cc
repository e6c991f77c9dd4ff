// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/text/tokenizer.h"
#include "gtest/gtest.h"

namespace ballast::text {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Source(const std::string& path) {
  return *ReadFile(std::string(std::getenv("BALLAST_SOURCE_DIR")) + "/" + path);
}

class EncodeChatTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = *Tokenizer::FromJson(Source("tests/testdata/tiny_tokenizer/tokenizer.json"));
  }

  std::unique_ptr<ChatTemplate> Template(const std::string& name) {
    return *ChatTemplate::FromSource(Source("common/text/testdata/templates/" + name + ".jinja"),
                                     "<|endoftext|>", "<|endoftext|>");
  }

  // The supervised text, with "|" between runs of tokens that are not.
  std::string Supervised(const SupervisedTokens& tokens) {
    std::string result;
    std::vector<int32_t> run;
    EXPECT_EQ(tokens.ids.size(), tokens.supervised.size());
    for (size_t i = 0; i <= tokens.ids.size(); ++i) {
      if (i < tokens.ids.size() && tokens.supervised[i]) {
        run.push_back(tokens.ids[i]);
      } else if (!run.empty()) {
        result += (result.empty() ? "" : "|") + *tokenizer_->Decode(run, false);
        run.clear();
      }
    }
    return result;
  }

  std::string Supervised(const ChatTemplate& chat_template, const std::vector<ChatMessage>& chat) {
    const auto tokens = EncodeChat(*tokenizer_, chat_template, chat);
    if (!tokens.ok()) return std::string(ErrorReason(tokens.status()));
    const auto rendered = chat_template.Render(chat, false);
    EXPECT_EQ(tokens->ids, tokenizer_->Encode(*rendered, false)->ids);
    return Supervised(*tokens);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(EncodeChatTest, MarksAssistantTextAndItsEndToken) {
  const auto chatml = Template("chatml");
  EXPECT_EQ(Supervised(*chatml, {{"user", "Hello"}, {"assistant", "Hi there."}}),
            "Hi there.<|im_end|>");
  EXPECT_EQ(Supervised(*chatml, {{"system", "Be short."},
                                 {"user", "one"},
                                 {"assistant", "two"},
                                 {"user", "three"},
                                 {"assistant", "four 世界 🚢"}}),
            "two<|im_end|>|four 世界 🚢<|im_end|>");
}

TEST_F(EncodeChatTest, UnsupervisedTurnsAreLeftOut) {
  EXPECT_EQ(
      Supervised(
          *Template("chatml"),
          {{"user", "one"}, {"assistant", "two", false}, {"user", "three"}, {"assistant", "four"}}),
      "four<|im_end|>");
}

TEST_F(EncodeChatTest, ChatsWithoutAssistantHaveNoTargets) {
  EXPECT_EQ(Supervised(*Template("chatml"), {{"user", "one"}}), "");
}

TEST_F(EncodeChatTest, EmptyTextLeavesTheEndToken) {
  EXPECT_EQ(Supervised(*Template("chatml"), {{"user", "a"}, {"assistant", ""}}), "<|im_end|>");
}

TEST_F(EncodeChatTest, WhiteSpaceOfTheTextIsText) {
  EXPECT_EQ(Supervised(*Template("chatml"), {{"user", "a"}, {"assistant", " x \n\n"}}),
            " x \n\n<|im_end|>");
}

TEST_F(EncodeChatTest, TheSameTextInBothRolesIsMarkedOnlyWhereTheAssistantSaysIt) {
  EXPECT_EQ(Supervised(
                *Template("chatml"),
                {{"user", "same"}, {"assistant", "same"}, {"user", "same"}, {"assistant", "same"}}),
            "same<|im_end|>|same<|im_end|>");
}

TEST_F(EncodeChatTest, ATokenBelongsToTheTurnInWhichItBegins) {
  // In this template text follows the prompt's space, and the tokenizer joins space and word.
  const auto joined = *ChatTemplate::FromSource(
      "{% for m in messages %}{{ m.role ~ ':' ~ (' ' if m.role != 'assistant') ~ "
      "(' ' ~ m.content if m.role == 'assistant' else m.content) ~ '<|im_end|>' }}{% endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}",
      "", "");
  // " sea" is one token and begins in the span.
  EXPECT_EQ(Supervised(*joined, {{"user", "the"}, {"assistant", "sea"}}), " sea<|im_end|>");
  const auto prompt_space = *ChatTemplate::FromSource(
      "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '<|im_end|>' }}{% endfor %}"
      "{% if add_generation_prompt %}assistant: {% endif %}",
      "", "");
  // " sea" begins in the prompt, so its token is not a target.
  ASSERT_OK_AND_ASSIGN(const Encoding sea, tokenizer_->Encode(" sea", false));
  ASSERT_EQ(sea.ids.size(), 1u);
  EXPECT_EQ(Supervised(*prompt_space, {{"user", "the"}, {"assistant", "sea"}}), "<|im_end|>");
}

TEST_F(EncodeChatTest, WhatEndsOnlyAWholeChatIsNotATarget) {
  // The Phi shape closes a chat with an end token. The tiny tokenizer knows <|im_end|> alone.
  std::string source = Source("common/text/testdata/templates/phi3.jinja");
  for (size_t at; (at = source.find("<|end|>")) != std::string::npos;) {
    source.replace(at, 7, "<|im_end|>");
  }
  const auto phi = *ChatTemplate::FromSource(source, "", "<|endoftext|>");
  EXPECT_EQ(Supervised(*phi, {{"user", "one"}, {"assistant", "two"}}), "two<|im_end|>");
  EXPECT_EQ(
      Supervised(*phi,
                 {{"user", "one"}, {"assistant", "two"}, {"user", "three"}, {"assistant", "four"}}),
      "two<|im_end|>|four<|im_end|>");
}

TEST_F(EncodeChatTest, OtherShapesGiveExactSpans) {
  const std::vector<ChatMessage> chat = {
      {"user", "one"}, {"assistant", " two "}, {"user", "three"}, {"assistant", "four"}};
  EXPECT_EQ(Supervised(*Template("llama3"), chat), "two<|eot_id|>|four<|eot_id|>");
  EXPECT_EQ(Supervised(*Template("qwen25"), chat), " two <|im_end|>|four<|im_end|>");
  EXPECT_EQ(Supervised(*Template("mistral"), chat), " two<|endoftext|>| four<|endoftext|>");
  EXPECT_EQ(Supervised(*Template("gemma"), chat), "two<end_of_turn>|four<end_of_turn>");
}

TEST_F(EncodeChatTest, TemplatesThatRewriteEarlierTurnsAreRefused) {
  const auto mistral = Template("mistral");
  const std::vector<ChatMessage> chat = {{"system", "s"},
                                         {"user", "one"},
                                         {"assistant", "two"},
                                         {"user", "three"},
                                         {"assistant", "four"}};
  const auto result = EncodeChat(*tokenizer_, *mistral, chat);
  EXPECT_THAT(result, StatusIs(kInvalid, "TEMPLATE_NOT_PREFIX_STABLE"));

  const auto thinking = *ChatTemplate::FromSource(
      "{% for m in messages %}<|im_start|>{{ m.role ~ '\n' ~ (m.content if loop.last else "
      "m.content.split('</t>')[-1]) ~ '<|im_end|>\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
      "", "");
  EXPECT_THAT(EncodeChat(*tokenizer_, *thinking,
                         {{"user", "a"}, {"assistant", "<t>x<|im_end|></t>b"}, {"user", "c"}}),
              StatusIs(kInvalid, "TEMPLATE_NOT_PREFIX_STABLE"));
  // What the message recommends works.
  EXPECT_EQ(Supervised(*thinking, {{"user", "a"},
                                   {"assistant", "<t>x</t>b", false},
                                   {"user", "c"},
                                   {"assistant", "<t>y</t>d"}}),
            "<t>y</t>d<|im_end|>");
}

TEST_F(EncodeChatTest, TooLongIsSaidBeforeSpansAreLookedFor) {
  const auto chatml = Template("chatml");
  EXPECT_OK(EncodeChat(*tokenizer_, *chatml, {{"user", "a"}, {"assistant", "b"}}, 200));
  std::vector<ChatMessage> chat;
  for (int i = 0; i < 4000; ++i) chat.push_back({i % 2 ? "assistant" : "user", "x"});
  EXPECT_THAT(EncodeChat(*tokenizer_, *chatml, chat, 200), StatusIs(kInvalid, "TOO_LONG"));
}

TEST_F(EncodeChatTest, FailuresDoNotQuoteTheChat) {
  const auto raising =
      *ChatTemplate::FromSource("{{ raise_exception('bad: ' ~ messages[0].content) }}", "", "");
  const auto result = EncodeChat(*tokenizer_, *raising, {{"user", "SECRET"}, {"assistant", "b"}});
  EXPECT_THAT(result, StatusIs(kInvalid, "TEMPLATE_FAILED"));
  EXPECT_THAT(result.status().ToString(), Not(HasSubstr("SECRET")));
}

}  // namespace
}  // namespace ballast::text
