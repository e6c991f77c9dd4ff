// SPDX-License-Identifier: Apache-2.0
#include "common/text/tokenizer.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ballast::text {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Source(const std::string& path) {
  return std::string(std::getenv("BALLAST_SOURCE_DIR")) + "/" + path;
}

std::string TinyJson() { return *ReadFile(Source("tests/testdata/tiny_tokenizer/tokenizer.json")); }

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override { tokenizer_ = *Tokenizer::FromJson(TinyJson()); }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, SpecialTokensInTextBecomeTheirIds) {
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode("<|im_start|>user<|im_end|>", false));
  EXPECT_EQ(e.ids.front(), tokenizer_->TokenToId("<|im_start|>"));
  EXPECT_EQ(e.ids.back(), tokenizer_->TokenToId("<|im_end|>"));
  EXPECT_THAT(tokenizer_->SpecialTokens(),
              ElementsAre("<|endoftext|>", "<|im_start|>", "<|im_end|>"));
  EXPECT_EQ(tokenizer_->VocabularySize(), 384);
  EXPECT_EQ(tokenizer_->TokenToId("no such token"), std::nullopt);
}

TEST_F(TokenizerTest, OffsetsCoverTheTextWithoutGapsEvenWhereTheTokenizerTrimsThem) {
  const std::string text = "Hello  the sea \n is wide.";
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode(text, false));
  uint32_t at = 0;
  for (size_t i = 0; i < e.ids.size(); ++i) {
    EXPECT_EQ(e.begin[i], at);
    at = e.end[i];
  }
  EXPECT_EQ(at, text.size());
  // With the post-processor, whose trimming this tokenizer asks for, they do not.
  ASSERT_OK_AND_ASSIGN(const Encoding trimmed, tokenizer_->Encode(text, true));
  EXPECT_EQ(trimmed.ids, e.ids);
  EXPECT_NE(trimmed.begin, e.begin);
}

TEST_F(TokenizerTest, OffsetsAreBytesNotCharacters) {
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode("世<|im_end|>x", false));
  const auto end = std::find(e.ids.begin(), e.ids.end(), *tokenizer_->TokenToId("<|im_end|>"));
  ASSERT_NE(end, e.ids.end());
  EXPECT_EQ(e.begin[end - e.ids.begin()], 3u);
}

TEST_F(TokenizerTest, DecodesWhatItEncodes) {
  const std::string text = "<|im_start|>user\nGrüße, 世界 🚢<|im_end|>\n";
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode(text, false));
  EXPECT_THAT(tokenizer_->Decode(e.ids, false), ::ballast::testing::IsOkAndHolds(text));
  EXPECT_THAT(tokenizer_->Decode(e.ids, true),
              ::ballast::testing::IsOkAndHolds("user\nGrüße, 世界 🚢\n"));
  EXPECT_THAT(tokenizer_->Decode({}, true), ::ballast::testing::IsOkAndHolds(""));
  EXPECT_THAT(tokenizer_->Decode({-1, 1 << 30}, true), ::ballast::testing::IsOkAndHolds(""));
}

TEST_F(TokenizerTest, BadUtf8IsAnError) {
  EXPECT_THAT(tokenizer_->Encode("\xff\xfe", false), StatusIs(kInvalid, "TOKENIZE_FAILED"));
}

TEST_F(TokenizerTest, EmptyTextHasNoTokens) {
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode("", false));
  EXPECT_TRUE(e.ids.empty());
}

TEST_F(TokenizerTest, LongRunsAreTokenised) {
  for (const char* piece : {" ", "a", "\n", "ab "}) {
    std::string text;
    while (text.size() < (1 << 20)) text += piece;
    ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer_->Encode(text, false));
    EXPECT_EQ(e.end.back(), text.size());
  }
}

TEST(TokenizerFromJsonTest, CorruptFilesAreRefused) {
  const std::string good = TinyJson();
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("[1]"), std::string("\xff\xff"),
        good.substr(0, good.size() / 2), std::string(1'000'000, '['),
        std::string(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["b c"]}})")}) {
    EXPECT_THAT(Tokenizer::FromJson(bad), StatusIs(kInvalid, "TOKENIZER_INVALID"));
  }
}

TEST(TokenizerFromJsonTest, TruncationAndPaddingOfTheFileAreIgnored) {
  auto json = nlohmann::json::parse(TinyJson(), nullptr, false);
  json["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  json["padding"] = {
      {"strategy", {{"Fixed", 64}}},   {"direction", "Right"}, {"pad_id", 0},
      {"pad_to_multiple_of", nullptr}, {"pad_type_id", 0},     {"pad_token", "<|im_end|>"}};
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::FromJson(json.dump()));
  ASSERT_OK_AND_ASSIGN(const Encoding e, tokenizer->Encode("xyzxyz", false));
  EXPECT_EQ(e.ids.size(), 6u);
}

TEST(TokenizerFromJsonTest, MutatedFilesNeverCrash) {
  std::mt19937 random(3);
  const std::string good = TinyJson();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  int refused = 0;
  for (int i = 0; i < 2000 && std::chrono::steady_clock::now() < end; ++i) {
    std::string json = good;
    for (int change = 0; change < 3; ++change) {
      json[random() % json.size()] = "0-9{}[]\",:az"[random() % 12];
    }
    const auto tokenizer = Tokenizer::FromJson(json);
    if (!tokenizer.ok()) {
      ++refused;
      continue;
    }
    (void)(*tokenizer)->Encode("Hello <|im_end|> world 7", true);
  }
  EXPECT_GT(refused, 0);
}

// The real model, where it is on this machine: scripts/setup and CI make it with
// scripts/convert_smollm2.
TEST(SmolLm2Test, TemplateAndTokensEqualTransformers) {
  const char* given = std::getenv("BALLAST_SMOLLM2");
  const std::string folder = given ? given : Source(".cache/models/SmolLM2-135M-Instruct");
  if (!std::filesystem::exists(folder + "/tokenizer.json")) {
    GTEST_SKIP() << "no SmolLM2 in " << folder << "; make it with scripts/convert_smollm2";
  }
  ASSERT_OK_AND_ASSIGN(const ModelText text, ModelText::FromFolder(folder));
  const auto goldens = nlohmann::json::parse(
      *ReadFile(Source("common/text/testdata/smollm2_goldens.json")), nullptr, false);
  ASSERT_GT(goldens["cases"].size(), 20u);
  for (const auto& test : goldens["cases"]) {
    std::vector<ChatMessage> chat;
    for (const auto& turn : goldens["chats"][test["chat"].get<std::string>()]) {
      chat.push_back({turn["role"].get<std::string>(), turn["content"].get<std::string>()});
    }
    ASSERT_OK_AND_ASSIGN(
        const std::string rendered,
        text.chat_template->Render(chat, test["add_generation_prompt"].get<bool>()));
    ASSERT_OK_AND_ASSIGN(const Encoding e, text.tokenizer->Encode(rendered, false));
    EXPECT_EQ(e.ids, test["ids"].get<std::vector<int32_t>>()) << test["chat"];
  }
  EXPECT_FALSE(text.end_tokens.empty());
}

}  // namespace
}  // namespace ballast::text
