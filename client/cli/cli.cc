// SPDX-License-Identifier: Apache-2.0
#include "client/cli/cli.h"

#include <cstdio>
#include <exception>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "google/protobuf/util/json_util.h"

namespace ballast::cli {

Cli::Cli(Environment environment) : environment_(std::move(environment)) {
  app_.name("ballast");
  app_.description(
      "Ballast fine-tunes language models under a security vector and gives back an adapter.\n"
      "Start with `ballast dev`; it runs a server and a worker on this machine.");
  app_.set_version_flag("--version", "ballast 0.1.0");
  app_.require_subcommand(1);
  app_.add_option("--server", flags_.server_address, "Server, host:port [BALLAST_SERVER]")
      ->group("Connection");
  app_.add_option("--api-key-file", flags_.api_key_file,
                  "File with the API key [BALLAST_API_KEY_FILE; the key itself: BALLAST_API_KEY]")
      ->group("Connection");
  app_.add_option("--tenant", flags_.tenant, "Tenant id [BALLAST_TENANT]")->group("Connection");
  app_.add_option("--profile", flags_.profile,
                  "File with all of these, as `ballast dev` writes it [BALLAST_PROFILE; "
                  "~/.config/ballast/profile.yaml]")
      ->group("Connection");
  app_.add_option("--tls-authority-file", flags_.tls_authority_file,
                  "PEM file of the server's certificate authority [BALLAST_TLS_AUTHORITY_FILE]")
      ->group("Connection");
  app_.add_option("--output", output_, "Results as a table for people or as JSON for programs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str()
      ->group("Output");
  app_.footer(
      "Every command has --help with examples. Global options may stand anywhere.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 unavailable,\n"
      "6 job failed or was cancelled, 7 not allowed.");
}

CLI::App* Cli::AddGroup(const std::string& name, const std::string& description) {
  CLI::App* group = app_.add_subcommand(name, description);
  group->require_subcommand(1);
  group->fallthrough();
  return group;
}

CLI::App* Cli::AddCommand(CLI::App* parent, const std::string& name, const std::string& description,
                          const std::string& examples, std::function<absl::Status()> body) {
  CLI::App* command = parent->add_subcommand(name, description);
  command->fallthrough();
  command->footer("Examples:\n" + examples);
  command->callback([this, body = std::move(body)] { body_ = body; });
  return command;
}

int Cli::Main(int argc, const char* const* argv) {
  // CLI11 reports by exceptions; they end here.
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app_.exit(error);  // --help, --version
    std::fprintf(stderr, "error: %s\ntry: add --help to see the options and examples\n",
                 error.what());
    return kExitUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kExitUsage;
  }
  const absl::Status status = body_();
  std::fflush(stdout);
  if (status.ok()) return kExitOk;
  const std::string text = json() ? DescribeErrorJson(status) : DescribeError(status);
  std::fputs(text.c_str(), stderr);
  return ExitCodeOf(status);
}

absl::StatusOr<std::shared_ptr<const client::Connection>> Cli::Connect(Role role,
                                                                       std::string* tenant) {
  BALLAST_ASSIGN_OR_RETURN(Credentials credentials, ResolveCredentials(flags_, environment_, role));
  if (tenant != nullptr) *tenant = credentials.tenant;
  client::ConnectionOptions options;
  options.server_address = std::move(credentials.server_address);
  options.api_key = std::move(credentials.api_key);
  options.tls_authority_file = std::move(credentials.tls_authority_file);
  return client::Connection::Create(std::move(options));
}

absl::StatusOr<std::shared_ptr<client::Client>> Cli::TenantClient() {
  std::string tenant;
  BALLAST_ASSIGN_OR_RETURN(auto connection, Connect(Role::kTenant, &tenant));
  return std::make_shared<client::Client>(std::move(connection), tenant);
}

absl::StatusOr<std::shared_ptr<client::AdminClient>> Cli::OperatorClient() {
  BALLAST_ASSIGN_OR_RETURN(auto connection, Connect(Role::kOperator, nullptr));
  return std::make_shared<client::AdminClient>(std::move(connection));
}

void Cli::PrintJson(const google::protobuf::Message& message, bool one_line) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = !one_line;
  options.always_print_primitive_fields = true;
  std::string text;
  // Fails only for messages with an Any, which the contract has none of.
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  if (one_line) text += '\n';
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

void Cli::Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace ballast::cli
