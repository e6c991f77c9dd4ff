// SPDX-License-Identifier: Apache-2.0
#include "common/base/utf8.h"

#include <gtest/gtest.h>

namespace ballast {
namespace {

// One character of each length: e acute, euro sign, an emoji.
constexpr char kText[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x9A\xA2z";

TEST(ValidUtf8Test, TextStaysAsItIs) {
  EXPECT_EQ(ValidUtf8(""), "");
  EXPECT_EQ(ValidUtf8(kText), kText);
  EXPECT_EQ(ValidUtf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"),  // beside what is not allowed
            "\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF");
}

TEST(ValidUtf8Test, CutsBetweenCharacters) {
  const std::string text = kText;
  const size_t borders[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (size_t limit = 0; limit < std::size(borders); ++limit) {
    EXPECT_EQ(ValidUtf8(text, limit), text.substr(0, borders[limit])) << limit;
  }
}

TEST(ValidUtf8Test, BytesOfNoCharacterAreReplaced) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(ValidUtf8("a\xFFz"), "a" + bad + "z");
  EXPECT_EQ(ValidUtf8("\x80"), bad);                        // no lead
  EXPECT_EQ(ValidUtf8("\xE2\x82"), bad + bad);              // cut
  EXPECT_EQ(ValidUtf8("\xE2\x82z"), bad + bad + "z");       // cut
  EXPECT_EQ(ValidUtf8("\xC0\xAF"), bad + bad);              // overlong
  EXPECT_EQ(ValidUtf8("\xE0\x80\xAF"), bad + bad + bad);    // overlong
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80"), bad + bad + bad);    // a surrogate
  EXPECT_EQ(ValidUtf8("\xF4\x90\x80\x80").size(), 4u * 3);  // above U+10FFFF
  EXPECT_EQ(ValidUtf8("\xF5\x80\x80\x80").size(), 4u * 3);
  EXPECT_EQ(ValidUtf8("ab\xFF", 4), "ab");  // the replacement needs three
}

}  // namespace
}  // namespace ballast
