// SPDX-License-Identifier: Apache-2.0
#include "client/cli/cli.h"

#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/format.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "google/protobuf/util/json_util.h"

namespace ballast::cli {
namespace {

absl::Status UsageError(const std::string& message) {
  return WithExitCode(MakeError(absl::StatusCode::kInvalidArgument, "USAGE", message), kExitUsage);
}

// Whether `--output json` is there: a parse that failed may not have come to it.
bool AsksForJson(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--output=json") return true;
    if (argument == "--output" && i + 1 < argc && std::string_view(argv[i + 1]) == "json") {
      return true;
    }
  }
  return false;
}

}  // namespace

Cli::Cli(Environment environment) : environment_(std::move(environment)) {
  app_.name("ballast");
  app_.description(
      "Ballast fine-tunes language models under a security vector and gives back an adapter.\n"
      "Start with `ballast dev`; it runs a server and a worker on this machine.");
  app_.set_version_flag("--version", absl::StrCat("ballast ", std::string(Version())));
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

absl::Status Cli::Parse(int argc, const char* const* argv) {
  // CLI11 reports by exceptions; they end here.
  try {
    app_.parse(argc, argv);
    return absl::OkStatus();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return UsageError(error.what());
    std::ostringstream text;  // --help, --version
    app_.exit(error, text, text);
    body_ = [text = text.str()] {
      Print(text);
      return absl::OkStatus();
    };
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return UsageError(error.what());
  }
}

int Cli::Main(int argc, const char* const* argv) {
  absl::Status status = Parse(argc, argv);
  if (status.ok()) {
    status = body_();
  } else if (AsksForJson(argc, argv)) {
    output_ = "json";
  }
  // A result that was not written is no success. The mark of an earlier failed write stays.
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (status.ok() && !written) {
    status = MakeError(absl::StatusCode::kDataLoss, "OUTPUT_NOT_WRITTEN",
                       "standard output did not take everything, and results are missing from it; "
                       "check that its disk is not full and that its reader still runs");
  }
  if (status.ok()) return kExitOk;
  const std::string text = json() ? DescribeErrorJson(status) : DescribeError(status);
  std::fputs(text.c_str(), stderr);
  return ExitCodeOf(status);
}

absl::Status Cli::RefuseZero(const CLI::Option& option, double value, const std::string& field) {
  if (option.count() == 0 || value != 0) return absl::OkStatus();
  return WithExitCode(
      FieldError(field, "HYPERPARAMETER_ZERO",
                 absl::StrCat(option.get_name(),
                              " is 0, which the server takes for the default; give another value, "
                              "or leave the option out for the default")),
      kExitUsage);
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

absl::StatusOr<std::shared_ptr<client::GateClient>> Cli::GateClient() {
  BALLAST_ASSIGN_OR_RETURN(auto connection, Connect(Role::kOperator, nullptr));
  return std::make_shared<client::GateClient>(std::move(connection));
}

absl::StatusOr<std::shared_ptr<client::SafetyRowsClient>> Cli::SafetyRowsClient() {
  BALLAST_ASSIGN_OR_RETURN(auto connection, Connect(Role::kOperator, nullptr));
  return std::make_shared<client::SafetyRowsClient>(std::move(connection));
}

absl::StatusOr<std::shared_ptr<client::ScreenClient>> Cli::ScreenClient() {
  BALLAST_ASSIGN_OR_RETURN(auto connection, Connect(Role::kOperator, nullptr));
  return std::make_shared<client::ScreenClient>(std::move(connection));
}

absl::StatusOr<std::shared_ptr<client::UsageClient>> Cli::UsageClient(std::string& tenant) {
  BALLAST_ASSIGN_OR_RETURN(auto connection, tenant.empty() ? Connect(Role::kTenant, &tenant)
                                                           : Connect(Role::kOperator, nullptr));
  return std::make_shared<client::UsageClient>(std::move(connection));
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

void Cli::PrintDeleted(const std::string& name) const {
  Print(json() ? nlohmann::json{{"deleted", name}}.dump(2, ' ', false,
                                                        nlohmann::json::error_handler_t::replace) +
                     "\n"
               : absl::StrCat("Deleted ", Printable(ShortName(name)), "\n"));
}

}  // namespace ballast::cli
