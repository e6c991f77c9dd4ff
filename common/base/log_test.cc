// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ::ballast::testing::StatusIs;

TEST(LogTest, AMisspeltLevelIsAnErrorAndNotSilence) {
  for (const char* level : {"off", "warning!", "INFO", "verbose", " info"}) {
    EXPECT_THAT(InitLog("a", level), StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"))
        << level;
  }
  // The level that a configuration leaves out.
  EXPECT_OK(InitLog("b", ""));
  EXPECT_EQ(spdlog::get_level(), spdlog::level::info);
  EXPECT_OK(InitLog("c", "error"));
  EXPECT_EQ(spdlog::get_level(), spdlog::level::err);
  EXPECT_THAT(InitLog("d", "of"), StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
  EXPECT_EQ(spdlog::get_level(), spdlog::level::err);
}

}  // namespace
}  // namespace ballast
