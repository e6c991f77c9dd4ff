// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/format.h"

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast::dataset {
namespace {

using ballast::testing::IsOkAndHolds;
using ballast::testing::StatusIs;

TEST(FormatTest, NamesAndFormatsAreOneToOne) {
  for (const Format format : {Format::kAuto, Format::kOpenAiChat, Format::kPromptCompletion,
                              Format::kAlpaca, Format::kShareGpt}) {
    EXPECT_THAT(ParseFormat(FormatName(format)), IsOkAndHolds(format));
  }
}

TEST(FormatTest, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  const auto format = ParseFormat("parquet");
  EXPECT_THAT(format, StatusIs(absl::StatusCode::kInvalidArgument, "FORMAT_UNKNOWN"));
  EXPECT_NE(format.status().message().find("sharegpt"), absl::string_view::npos);
}

}  // namespace
}  // namespace ballast::dataset
