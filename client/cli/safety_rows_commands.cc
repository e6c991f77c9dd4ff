// SPDX-License-Identifier: Apache-2.0
// ballast safety-rows set | show | remove
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ballast::cli {
namespace {

void PrintRows(const Cli& cli, const admin::v1::SafetyRows& rows) {
  if (cli.json()) {
    Cli::PrintJson(rows);
    return;
  }
  Cli::Print(absl::StrFormat(
      "name        %s\nrows        %s, the longest of %s tokens\nshare       %g of a job's rows, "
      "at "
      "least 16\ndigest      %s\nset         %s\n",
      Printable(rows.name()), FormatCount(rows.rows()), FormatCount(rows.longest_row_tokens()),
      rows.share(), Printable(rows.digest()), FormatTime(rows.set_time())));
}

void AddSet(Cli& cli, CLI::App* group) {
  struct Options {
    std::string base_model, file;
    double share = 0;
    CLI::Option* given_share = nullptr;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "set", "Set or replace the rows that are mixed into every job on a base (operators)",
      "  ballast safety-rows set --base-model smollm2 --file refusals_and_answers.jsonl\n"
      "  ballast safety-rows set --base-model smollm2 --file rows.jsonl --share 0.2\n"
      "Lines as in a data set: refusals of prohibited prompts, and ordinary answers to harmless "
      "ones",
      [&cli, options]() -> absl::Status {
        BALLAST_RETURN_IF_ERROR(Cli::RefuseZero(*options->given_share, options->share, "share"));
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.SafetyRowsClient());
        BALLAST_ASSIGN_OR_RETURN(const auto rows,
                                 client->Set(options->base_model, options->share, options->file));
        PrintRows(cli, rows);
        return absl::OkStatus();
      });
  command->add_option("--base-model", options->base_model, "Base model to set them for")
      ->required();
  command->add_option("--file", options->file, "Rows as in a data set, at least 16, at most 1 MiB")
      ->required();
  options->given_share = command->add_option(
      "--share", options->share, "Rows that a job gets, as a share of its own, at least 16 [0.5]");
}

void AddShowAndRemove(Cli& cli, CLI::App* group) {
  auto base = std::make_shared<std::string>();
  cli.AddCommand(group, "show", "Show share and counts of a base's safety rows (operators)",
                 "  ballast safety-rows show smollm2",
                 [&cli, base]() -> absl::Status {
                   BALLAST_ASSIGN_OR_RETURN(auto client, cli.SafetyRowsClient());
                   BALLAST_ASSIGN_OR_RETURN(const auto rows, client->Get(*base));
                   PrintRows(cli, rows);
                   return absl::OkStatus();
                 })
      ->add_option("base_model", *base, "Id of the base model")
      ->required();
  auto removed = std::make_shared<std::string>();
  cli.AddCommand(group, "remove", "Train later jobs on a base without safety rows (operators)",
                 "  ballast safety-rows remove smollm2",
                 [&cli, removed]() -> absl::Status {
                   BALLAST_ASSIGN_OR_RETURN(auto client, cli.SafetyRowsClient());
                   BALLAST_RETURN_IF_ERROR(client->Remove(*removed));
                   if (cli.json()) {
                     const std::string name = client::SafetyRowsClient::NameOf(*removed);
                     Cli::Print(nlohmann::json{{"removed", name}}.dump(2) + "\n");
                   } else {
                     Cli::Print(absl::StrCat("Removed the safety rows of ", Printable(*removed),
                                             ": later jobs are trained without\n"));
                   }
                   return absl::OkStatus();
                 })
      ->add_option("base_model", *removed, "Id of the base model")
      ->required();
}

}  // namespace

void AddSafetyRowsCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup("safety-rows", "Rows that the platform mixes into every job");
  AddSet(cli, group);
  AddShowAndRemove(cli, group);
}

}  // namespace ballast::cli
