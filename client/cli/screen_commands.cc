// SPDX-License-Identifier: Apache-2.0
// ballast screen set | show | remove
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

using admin::v1::Screen;

struct Action {
  const char* word;
  const char* does;
};

Action ActionOf(admin::v1::ScreenAction action) {
  switch (action) {
    case admin::v1::SCREEN_ACTION_REPORT:
      return {"report", "flagged rows are trained on, and the job tells of them"};
    case admin::v1::SCREEN_ACTION_DROP:
      return {"drop", "flagged rows are left out"};
    case admin::v1::SCREEN_ACTION_REFUSE:
      return {"refuse", "a job with flagged rows fails"};
    default:
      return {"unknown", "see a newer version of this program"};
  }
}

admin::v1::ScreenAction ParseAction(const std::string& word) {
  for (const auto action : {admin::v1::SCREEN_ACTION_REPORT, admin::v1::SCREEN_ACTION_DROP,
                            admin::v1::SCREEN_ACTION_REFUSE}) {
    if (word == ActionOf(action).word) return action;
  }
  return admin::v1::SCREEN_ACTION_UNSPECIFIED;
}

void PrintScreen(const Cli& cli, const Screen& screen) {
  if (cli.json()) {
    Cli::PrintJson(screen);
    return;
  }
  Cli::Print(absl::StrFormat(
      "name        %s\naction      %s: %s\nprohibited  %s rows\nbenign      %s rows\n"
      "digest      %s\nset         %s\n",
      Printable(screen.name()), ActionOf(screen.action()).word, ActionOf(screen.action()).does,
      FormatCount(screen.prohibited().rows()), FormatCount(screen.benign().rows()),
      Printable(screen.digest()), FormatTime(screen.set_time())));
}

void AddSet(Cli& cli, CLI::App* group) {
  struct Options {
    std::string base_model, prohibited, benign, action;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "set", "Set or replace the screening of every data set on a base (operators)",
      "  ballast screen set --base-model smollm2 --prohibited bad.jsonl --benign good.jsonl\n"
      "  ballast screen set --base-model smollm2 --prohibited bad.jsonl --benign good.jsonl "
      "--action report\n"
      "Lines as in a data set. Workers fit a small guard to them that looks at every job's rows",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.ScreenClient());
        BALLAST_ASSIGN_OR_RETURN(const auto screen,
                                 client->Set(options->base_model, ParseAction(options->action),
                                             options->prohibited, options->benign));
        PrintScreen(cli, screen);
        return absl::OkStatus();
      });
  command->add_option("--base-model", options->base_model, "Base model to set it for")->required();
  command
      ->add_option("--prohibited", options->prohibited,
                   "Examples of what is prohibited, at least 40 rows, at most 1 MiB")
      ->required();
  command
      ->add_option("--benign", options->benign,
                   "Examples of what is harmless, of as many kinds as can be")
      ->required();
  command
      ->add_option("--action", options->action,
                   "What happens to flagged rows: report, drop or refuse [drop]")
      ->check(CLI::IsMember({"report", "drop", "refuse"}));
}

void AddShowAndRemove(Cli& cli, CLI::App* group) {
  auto base = std::make_shared<std::string>();
  cli.AddCommand(group, "show", "Show action and counts of a base's screen (operators)",
                 "  ballast screen show smollm2",
                 [&cli, base]() -> absl::Status {
                   BALLAST_ASSIGN_OR_RETURN(auto client, cli.ScreenClient());
                   BALLAST_ASSIGN_OR_RETURN(const auto screen, client->Get(*base));
                   PrintScreen(cli, screen);
                   return absl::OkStatus();
                 })
      ->add_option("base_model", *base, "Id of the base model")
      ->required();
  auto removed = std::make_shared<std::string>();
  cli.AddCommand(group, "remove", "Screen no data set of later jobs on a base (operators)",
                 "  ballast screen remove smollm2",
                 [&cli, removed]() -> absl::Status {
                   BALLAST_ASSIGN_OR_RETURN(auto client, cli.ScreenClient());
                   BALLAST_RETURN_IF_ERROR(client->Remove(*removed));
                   if (cli.json()) {
                     const std::string name = client::ScreenClient::NameOf(*removed);
                     Cli::Print(nlohmann::json{{"removed", name}}.dump(2) + "\n");
                   } else {
                     Cli::Print(absl::StrCat("Removed the screen of ", Printable(*removed),
                                             ": later jobs are not screened\n"));
                   }
                   return absl::OkStatus();
                 })
      ->add_option("base_model", *removed, "Id of the base model")
      ->required();
}

}  // namespace

void AddScreenCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup("screen", "Screening of data sets before training");
  AddSet(cli, group);
  AddShowAndRemove(cli, group);
}

}  // namespace ballast::cli
