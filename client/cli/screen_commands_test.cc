// SPDX-License-Identifier: Apache-2.0
// The operators' commands about screening, from the command line to what a server gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/cli.h"
#include "client/testing/commands_fixture.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::cli {
namespace {

using ::testing::HasSubstr;

class ScreenCommandsTest : public CommandsFixture {
 protected:
  ScreenCommandsTest() : CommandsFixture(AddScreenCommands) {
    server_.set_screen = [this](auto&, const auto& request, auto& screen) {
      got_ = request;
      screen.set_name(request.name());
      screen.set_action(admin::v1::SCREEN_ACTION_DROP);
      screen.mutable_prohibited()->set_rows(44);
      return absl::OkStatus();
    };
  }

  admin::v1::SetScreenRequest got_;
};

TEST_F(ScreenCommandsTest, SetSendsBothFilesAndTheAction) {
  ASSERT_OK(WriteFileAtomically(file_, "the lines"));
  EXPECT_EQ(Run({"screen", "set", "--base-model", "m", "--prohibited", file_.c_str(), "--benign",
                 file_.c_str()}),
            0)
      << err_;
  EXPECT_EQ(got_.name(), "baseModels/m/screen");
  EXPECT_EQ(got_.prohibited(), "the lines");
  EXPECT_EQ(got_.benign(), "the lines");
  EXPECT_EQ(got_.action(), admin::v1::SCREEN_ACTION_UNSPECIFIED) << "the server's default";
  EXPECT_THAT(out_, HasSubstr("44"));
  EXPECT_THAT(out_, HasSubstr("drop"));
  EXPECT_EQ(Run({"screen", "set", "--base-model", "m", "--prohibited", file_.c_str(), "--benign",
                 file_.c_str(), "--action", "refuse"}),
            0)
      << err_;
  EXPECT_EQ(got_.action(), admin::v1::SCREEN_ACTION_REFUSE);
}

TEST_F(ScreenCommandsTest, WrongUsageIsToldBeforeAnythingIsSent) {
  ASSERT_OK(WriteFileAtomically(file_, "the lines"));
  EXPECT_EQ(Run({"screen", "set", "--base-model", "m", "--prohibited", file_.c_str(), "--benign",
                 file_.c_str(), "--action", "burn"}),
            2);
  EXPECT_EQ(Run({"screen", "set", "--base-model", "m", "--prohibited", file_.c_str()}), 2);
  ASSERT_OK(WriteFileAtomically(file_, std::string((1 << 20) + 1, ' ')));
  EXPECT_NE(Run({"screen", "set", "--base-model", "m", "--prohibited", file_.c_str(), "--benign",
                 file_.c_str()}),
            0);
  EXPECT_THAT(err_, HasSubstr("SCREEN_ROWS_TOO_LARGE"));
  EXPECT_EQ(got_.name(), "");
}

TEST_F(ScreenCommandsTest, ShowAndRemove) {
  server_.get_screen = [](auto&, const auto& request, auto& screen) {
    screen.set_name(request.name());
    screen.set_action(admin::v1::SCREEN_ACTION_REPORT);
    screen.mutable_benign()->set_rows(55);
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"screen", "show", "m"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("55"));
  EXPECT_THAT(out_, HasSubstr("report"));
  std::string removed;
  server_.remove_screen = [&](auto&, const auto& request, auto&) {
    removed = request.name();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"screen", "remove", "m", "--output", "json"}), 0) << err_;
  EXPECT_EQ(removed, "baseModels/m/screen");
  EXPECT_EQ(nlohmann::json::parse(out_)["removed"], removed);
}

}  // namespace
}  // namespace ballast::cli
