// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_TESTING_COMMANDS_FIXTURE_H_
#define BALLAST_CLIENT_TESTING_COMMANDS_FIXTURE_H_

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/cli.h"
#include "client/testing/fake_server.h"
#include "common/base/digest.h"
#include "gtest/gtest.h"

namespace ballast::cli {

// Commands of an operator, from the command line to what a server gets.
class CommandsFixture : public ::testing::Test {
 protected:
  // `add` puts the commands under test into the command line.
  explicit CommandsFixture(void (*add)(Cli&))
      : add_(add), file_(std::filesystem::path(::testing::TempDir()) / RandomHex(64)) {}
  ~CommandsFixture() override { std::filesystem::remove(file_); }

  // The exit code; what was printed is in out_ and err_.
  int Run(std::vector<const char*> arguments) {
    Cli cli([this](const std::string& name) -> std::optional<std::string> {
      if (name == "BALLAST_SERVER") return server_.address();
      if (name == "BALLAST_API_KEY") return "key";
      return std::nullopt;
    });
    add_(cli);
    arguments.insert(arguments.begin(), "ballast");
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = cli.Main(static_cast<int>(arguments.size()), arguments.data());
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return code;
  }

  void (*const add_)(Cli&);
  client::testing::FakeServer server_;
  const std::filesystem::path file_;  // for what a command reads; removed at the end
  std::string out_, err_;
};

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_TESTING_COMMANDS_FIXTURE_H_
