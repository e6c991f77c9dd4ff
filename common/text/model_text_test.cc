// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <filesystem>

#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/text/tokenizer.h"
#include "gtest/gtest.h"

namespace ballast::text {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using Files = std::map<std::string, std::string>;

std::string TinyFolder() {
  return std::string(std::getenv("BALLAST_SOURCE_DIR")) + "/tests/testdata/tiny_tokenizer";
}

Files Tiny() {
  Files files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    files[name] = *ReadFile(TinyFolder() + "/" + name);
  }
  return files;
}

std::string Render(const ModelText& text) {
  return *text.chat_template->Render({{"user", "a"}}, false);
}

TEST(ModelTextTest, ReadsAFolder) {
  ASSERT_OK_AND_ASSIGN(const ModelText text, ModelText::FromFolder(TinyFolder()));
  EXPECT_EQ(Render(text),
            "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
  EXPECT_THAT(text.end_tokens, ElementsAre(2));
  EXPECT_EQ(text.tokenizer_digest, *DigestOfFile(TinyFolder() + "/tokenizer.json"));
  EXPECT_TRUE(IsDigest(text.template_digest));
}

TEST(ModelTextTest, TheTemplatesFileWins) {
  Files files = Tiny();
  files["chat_template.jinja"] = "{{ bos_token }}file{{ eos_token }}";
  ASSERT_OK_AND_ASSIGN(const ModelText text, ModelText::FromFiles(files));
  EXPECT_EQ(Render(text), "<|im_start|>file<|im_end|>");
  EXPECT_EQ(text.template_digest, DigestOf("{{ bos_token }}file{{ eos_token }}"));
}

TEST(ModelTextTest, NamedTemplatesTokenObjectsAndTheTokensMap) {
  Files files = Tiny();
  files["tokenizer_config.json"] = R"({"chat_template": [{"name": "tool_use", "template": "no"},
      {"name": "default", "template": "{{ bos_token ~ eos_token }}"}],
      "bos_token": {"content": "<|endoftext|>", "lstrip": false}, "eos_token": null})";
  files["special_tokens_map.json"] =
      R"({"eos_token": {"content": "<|im_end|>"}, "bos_token": "x"})";
  ASSERT_OK_AND_ASSIGN(const ModelText text, ModelText::FromFiles(files));
  EXPECT_EQ(Render(text), "<|endoftext|><|im_end|>");
}

TEST(ModelTextTest, EndTokensAreJoined) {
  Files files = Tiny();
  files["generation_config.json"] = R"({"eos_token_id": [7, 0, 7]})";
  files["config.json"] = R"({"eos_token_id": 9})";
  ASSERT_OK_AND_ASSIGN(const ModelText with_list, ModelText::FromFiles(files));
  EXPECT_THAT(with_list.end_tokens, ElementsAre(0, 2, 7));
  files.erase("generation_config.json");
  ASSERT_OK_AND_ASSIGN(const ModelText with_config, ModelText::FromFiles(files));
  EXPECT_THAT(with_config.end_tokens, ElementsAre(2, 9));
}

TEST(ModelTextTest, WhatIsMissingOrWrongIsNamed) {
  auto with = [](const std::string& name, const std::string& bytes) {
    Files files = Tiny();
    files[name] = bytes;
    return ModelText::FromFiles(files);
  };
  EXPECT_THAT(ModelText::FromFiles({}), StatusIs(kInvalid, "TOKENIZER_MISSING"));
  EXPECT_THAT(ModelText::FromFolder("/nonexistent"), StatusIs(kInvalid, "TOKENIZER_MISSING"));
  EXPECT_THAT(with("tokenizer.json", "{"), StatusIs(kInvalid, "TOKENIZER_INVALID"));
  EXPECT_THAT(with("tokenizer_config.json", "{}"), StatusIs(kInvalid, "TEMPLATE_MISSING"));
  EXPECT_THAT(with("chat_template.jinja", "{% if %}"), StatusIs(kInvalid, "TEMPLATE_INVALID"));
  for (const char* bad : {"", "[]", "{\"eos_token_id\": \"2\"}", "{\"eos_token_id\": [1.5]}",
                          "{\"eos_token_id\": -1}", "{\"eos_token_id\": 384}",
                          "{\"eos_token_id\": 18446744073709551615}"}) {
    EXPECT_THAT(with("generation_config.json", bad), StatusIs(kInvalid, "MODEL_TEXT_INVALID"))
        << bad;
  }
  EXPECT_THAT(with("generation_config.json",
                   "{\"a\":" + std::string(500'000, '[') + std::string(500'000, ']') + "}"),
              StatusIs(kInvalid, "MODEL_TEXT_INVALID"));
}

}  // namespace
}  // namespace ballast::text
