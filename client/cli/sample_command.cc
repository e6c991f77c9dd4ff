// SPDX-License-Identifier: Apache-2.0
// ballast sample
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::cli {

void AddSampleCommand(Cli& cli) {
  struct Options {
    std::string base_model, delta, prompt, system;
    int32_t max_tokens = 0;
    double temperature = 0;
    int64_t seed = 0;
    CLI::Option *given_tokens = nullptr, *given_seed = nullptr;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      &cli.app(), "sample", "Let a base model, or a base with a job's delta, answer",
      "  ballast sample --base-model smollm2 \"What is a ship's ballast?\"\n"
      "  ballast sample --delta job-0123 \"What is a ship's ballast?\" --max-tokens 64",
      [&cli, options]() -> absl::Status {
        if (options->base_model.empty() == options->delta.empty()) {
          return WithExitCode(MakeError(absl::StatusCode::kInvalidArgument, "USAGE",
                                        "give either --base-model or --delta"),
                              kExitUsage);
        }
        BALLAST_RETURN_IF_ERROR(
            Cli::RefuseZero(*options->given_tokens, options->max_tokens, "max_tokens"));
        BALLAST_RETURN_IF_ERROR(
            Cli::RefuseZero(*options->given_seed, static_cast<double>(options->seed), "seed"));
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        v1::SampleRequest request;
        if (options->delta.empty()) {
          request.set_base_model(client::Client::BaseModelName(options->base_model));
        } else {
          request.set_delta(client->DeltaName(options->delta));
        }
        if (!options->system.empty()) {
          auto* message = request.add_messages();
          message->set_role("system");
          message->set_content(options->system);
        }
        auto* message = request.add_messages();
        message->set_role("user");
        message->set_content(options->prompt);
        request.set_max_tokens(options->max_tokens);
        request.set_temperature(options->temperature);
        request.set_seed(options->seed);

        std::string reply;
        const auto finish = client->Sample(request, [&](const std::string& text) {
          if (cli.json()) {
            reply += text;
          } else {
            Cli::Print(Printable(text, /*keep_layout=*/true));
          }
        });
        if (!cli.json()) Cli::Print("\n");
        BALLAST_RETURN_IF_ERROR(finish.status());
        if (cli.json()) {
          Cli::Print(nlohmann::json{{"text", reply}, {"finishReason", *finish}}.dump(
                         2, ' ', false, nlohmann::json::error_handler_t::replace) +
                     "\n");
        } else if (*finish == "length") {
          std::fputs("(cut at --max-tokens)\n", stderr);
        }
        return absl::OkStatus();
      });
  command->add_option("prompt", options->prompt, "What to ask")->required();
  command->add_option("--base-model", options->base_model, "Base model that answers");
  command->add_option("--delta", options->delta, "Job whose delta answers, on its base model");
  command->add_option("--system", options->system, "System message before the prompt");
  options->given_tokens =
      command->add_option("--max-tokens", options->max_tokens, "Longest reply [128]");
  command->add_option("--temperature", options->temperature,
                      "0 takes the likeliest token each time; up to 2 [0]");
  options->given_seed =
      command->add_option("--seed", options->seed, "Seed of the draw, other than 0 [random]");
}

}  // namespace ballast::cli
