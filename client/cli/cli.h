// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CLI_CLI_H_
#define BALLAST_CLIENT_CLI_CLI_H_

#include <functional>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/error_report.h"
#include "client/cli/profile.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "client/cpp/gate_client.h"
#include "client/cpp/safety_rows_client.h"
#include "client/cpp/screen_client.h"
#include "client/cpp/usage_client.h"
#include "google/protobuf/message.h"

namespace ballast::cli {

// What all commands share: the global options, the clients made from them, and the way to print.
// Command groups (`Add...Commands`) put their subcommands into the CLI11 app and their bodies here.
// Not thread-safe.
class Cli {
 public:
  explicit Cli(Environment environment);

  // Reads the command line and runs its command. The exit code (error_report.h). Results go to
  // standard output, everything else to standard error. A result that could not be written is a
  // failure (OUTPUT_NOT_WRITTEN).
  int Main(int argc, const char* const* argv);

  CLI::App& app() { return app_; }
  const Environment& environment() const { return environment_; }

  // A subcommand of `parent` with a description and examples for --help, and its body. What `body`
  // captures by value must be shared pointers to the variables that options write to.
  CLI::App* AddCommand(CLI::App* parent, const std::string& name, const std::string& description,
                       const std::string& examples, std::function<absl::Status()> body);
  // A subcommand that only holds subcommands.
  CLI::App* AddGroup(const std::string& name, const std::string& description);

  // Clients by the options, made on first use.
  absl::StatusOr<std::shared_ptr<client::Client>> TenantClient();
  absl::StatusOr<std::shared_ptr<client::AdminClient>> OperatorClient();
  absl::StatusOr<std::shared_ptr<client::GateClient>> GateClient();
  absl::StatusOr<std::shared_ptr<client::SafetyRowsClient>> SafetyRowsClient();
  absl::StatusOr<std::shared_ptr<client::ScreenClient>> ScreenClient();
  // Of an operator where `tenant` is given; else of the tenant, which `tenant` then names.
  absl::StatusOr<std::shared_ptr<client::UsageClient>> UsageClient(std::string& tenant);

  // Refuses a 0 that was typed for an option whose 0 means "not given" to the server: it would be
  // replaced without a word. INVALID_ARGUMENT (HYPERPARAMETER_ZERO) with the exit code of a usage
  // error; `field` is the request's.
  static absl::Status RefuseZero(const CLI::Option& option, double value, const std::string& field);

  bool json() const { return output_ == "json"; }
  // Prints one message as indented JSON, or as one line with `one_line`.
  static void PrintJson(const google::protobuf::Message& message, bool one_line = false);
  // Prints text for people.
  static void Print(const std::string& text);
  // Says that a resource was deleted, in either form.
  void PrintDeleted(const std::string& name) const;

 private:
  // Leaves the body to run. INVALID_ARGUMENT (USAGE).
  absl::Status Parse(int argc, const char* const* argv);
  absl::StatusOr<std::shared_ptr<const client::Connection>> Connect(Role role, std::string* tenant);

  const Environment environment_;
  CLI::App app_;
  ConnectionFlags flags_;
  std::string output_ = "table";
  std::function<absl::Status()> body_;
};

// The command groups, one file each.
void AddDatasetCommands(Cli& cli);
void AddDeltaCommands(Cli& cli);
void AddDevCommand(Cli& cli);
void AddGateCommands(Cli& cli);  // gate and tenant
void AddSafetyRowsCommands(Cli& cli);
void AddScreenCommands(Cli& cli);
void AddJobCommands(Cli& cli);
void AddModelCommands(Cli& cli);
void AddSampleCommand(Cli& cli);
void AddUsageCommand(Cli& cli);
void AddVectorCommands(Cli& cli);
// Those of the group "vector" that are about certificates.
void AddCertificateCommands(Cli& cli, CLI::App* vector_group);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_CLI_H_
