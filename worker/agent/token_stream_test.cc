// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/token_stream.h"

#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/fake_text.h"

namespace ballast::worker::agent {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Stream(const std::string& bytes) {
  const text::ModelText model = testing::FakeModelText();
  TokenStream stream(*model.tokenizer);
  std::vector<std::string> pieces;
  for (const char byte : bytes) {
    const auto piece = stream.Add(static_cast<unsigned char>(byte));
    EXPECT_OK(piece);
    if (!piece->empty()) pieces.push_back(*piece);
  }
  const auto rest = stream.Finish();
  EXPECT_OK(rest);
  if (!rest->empty()) pieces.push_back(*rest);
  return pieces;
}

TEST(TokenStreamTest, GivesWholeCharacters) {
  EXPECT_THAT(Stream("ab"), ElementsAre("a", "b"));
  EXPECT_THAT(Stream("a\xc3\xa9z"), ElementsAre("a", "\xc3\xa9", "z"));
  EXPECT_THAT(Stream("\xf0\x9f\x9a\xa2!"), ElementsAre("\xf0\x9f\x9a\xa2", "!"));
  EXPECT_THAT(Stream(""), ElementsAre());
}

TEST(TokenStreamTest, GivesAnUnfinishedCharacterAtTheEndOnly) {
  EXPECT_THAT(Stream("a\xf0\x9f"), ElementsAre("a", "\xef\xbf\xbd\xef\xbf\xbd"));
}

TEST(TokenStreamTest, HoldsBackNoMoreThanACharacterCanNeed) {
  // Bytes that never become a character: they come out in the end, and all of them.
  std::string all;
  std::string bytes(40, '\x80');
  bytes += 'z';
  const auto pieces = Stream(bytes);
  EXPECT_GT(pieces.size(), 2u);
  for (const std::string& piece : pieces) all += piece;
  std::string expected;
  for (int i = 0; i < 40; ++i) expected += "\xef\xbf\xbd";
  EXPECT_EQ(all, expected + "z");
}

}  // namespace
}  // namespace ballast::worker::agent
