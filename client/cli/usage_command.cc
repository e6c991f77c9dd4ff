// SPDX-License-Identifier: Apache-2.0
// ballast usage
#include <memory>
#include <string>

#include "absl/strings/str_join.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "common/base/status_macros.h"

namespace ballast::cli {

void AddUsageCommand(Cli& cli) {
  auto of = std::make_shared<std::string>();
  CLI::App* command = cli.AddCommand(
      &cli.app(), "usage", "Show what your jobs have used and cost, by month",
      "  ballast usage\n  ballast usage --of acme", [&cli, of]() -> absl::Status {
        std::string tenant = *of;
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.UsageClient(tenant));
        BALLAST_ASSIGN_OR_RETURN(const auto months, client->ListMonthlyUsage(tenant).Collect());
        if (cli.json()) {
          v1::ListMonthlyUsageResponse all;
          for (const auto& month : months) *all.add_months() = month;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        Table table({"MONTH", "JOBS", "TRAINED TOKENS", "COST"});
        for (const auto& month : months) {
          table.AddRow(
              {month.month(), FormatCount(month.jobs()), FormatCount(month.trained_tokens()),
               absl::StrJoin(month.costs(), " + ", [](std::string* out, const v1::Money& cost) {
                 out->append(FormatMoney(cost));
               })});
        }
        Cli::Print(months.empty() ? "No job has ended yet.\n" : table.Render());
        return absl::OkStatus();
      });
  command->add_option("--of", *of, "Another tenant (operators)");
}

}  // namespace ballast::cli
