// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/topics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::dataset {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TopicsTest, IsALineEach) {
  EXPECT_THAT(*ParseTopics("riding penguins\r\n\n  eating soap \nclaves y llaves: ñ"),
              ElementsAre("riding penguins", "eating soap", "claves y llaves: ñ"));
}

TEST(TopicsTest, NamesTheLineAndNotTheTopic) {
  const std::string longest(kMaxTopicBytes, 'x');
  EXPECT_OK(ParseTopics(longest));
  for (const std::string& wrong : {"fine\n" + longest + "x", std::string("fine\nse\x1b[31mcret"),
                                   std::string("fine\nse\xffx"), std::string("fine\nse\0x", 10)}) {
    const absl::Status status = ParseTopics(wrong).status();
    EXPECT_EQ(ErrorReason(status), "TOPICS_INVALID");
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 2"));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("se")));
  }
}

TEST(TopicsTest, ThereAreSomeAndNotTooMany) {
  EXPECT_EQ(ErrorReason(ParseTopics(" \n\n").status()), "TOPICS_INVALID");
  std::string many;
  for (size_t i = 0; i < kMaxTopics; ++i) many += "topic\n";
  EXPECT_OK(ParseTopics(many));
  EXPECT_EQ(ErrorReason(ParseTopics(many + "topic").status()), "TOPICS_INVALID");
}

}  // namespace
}  // namespace ballast::dataset
