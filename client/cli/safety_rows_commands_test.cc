// SPDX-License-Identifier: Apache-2.0
// The operators' commands about safety rows, from the command line to what a server gets.
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

class SafetyRowsCommandsTest : public CommandsFixture {
 protected:
  SafetyRowsCommandsTest() : CommandsFixture(AddSafetyRowsCommands) {
    server_.set_safety_rows = [this](auto&, const auto& request, auto& rows) {
      got_ = request;
      rows.set_name(request.name());
      rows.set_rows(20);
      rows.set_share(0.1);
      return absl::OkStatus();
    };
  }

  admin::v1::SetSafetyRowsRequest got_;
};

TEST_F(SafetyRowsCommandsTest, SetSendsTheFile) {
  ASSERT_OK(WriteFileAtomically(file_, "the lines"));
  EXPECT_EQ(
      Run({"safety-rows", "set", "--base-model", "m", "--file", file_.c_str(), "--share", "0.2"}),
      0)
      << err_;
  EXPECT_EQ(got_.name(), "baseModels/m/safetyRows");
  EXPECT_EQ(got_.rows(), "the lines");
  EXPECT_EQ(got_.share(), 0.2);
  EXPECT_THAT(out_, HasSubstr("20"));
}

TEST_F(SafetyRowsCommandsTest, AShareOfZeroIsRefusedAndOneNotTypedIsTheServersMatter) {
  ASSERT_OK(WriteFileAtomically(file_, "the lines"));
  EXPECT_NE(
      Run({"safety-rows", "set", "--base-model", "m", "--file", file_.c_str(), "--share", "0"}), 0);
  EXPECT_THAT(err_, HasSubstr("share"));
  EXPECT_EQ(Run({"safety-rows", "set", "--base-model", "m", "--file", file_.c_str()}), 0) << err_;
  EXPECT_EQ(got_.share(), 0);
}

TEST_F(SafetyRowsCommandsTest, ShowAndRemove) {
  server_.get_safety_rows = [](auto&, const auto& request, auto& rows) {
    rows.set_name(request.name());
    rows.set_rows(21);
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"safety-rows", "show", "m"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("21"));
  std::string removed;
  server_.remove_safety_rows = [&](auto&, const auto& request, auto&) {
    removed = request.name();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"safety-rows", "remove", "m", "--output", "json"}), 0) << err_;
  EXPECT_EQ(removed, "baseModels/m/safetyRows");
  EXPECT_EQ(nlohmann::json::parse(out_)["removed"], removed);
}

}  // namespace
}  // namespace ballast::cli
