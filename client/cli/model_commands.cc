// SPDX-License-Identifier: Apache-2.0
// ballast model import | list | workers
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "client/cli/progress_bar.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

std::string Millions(int64_t parameters) {
  if (parameters < 1'000'000) return FormatCount(parameters);
  return absl::StrCat(FormatCount((parameters + 500'000) / 1'000'000), "M");
}

void AddImport(Cli& cli, CLI::App* group) {
  struct Options {
    std::string folder;
    std::string id;
    std::string policy;
    bool unprotected = false;
    int64_t min_rows = 0, max_rows = 0, min_steps = 0, max_steps = 0;
    int32_t max_lora_rank = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "import", "Import a base model from its Hugging Face folder (operators)",
      "  ballast model import ./SmolLM2-135M-Instruct --id smollm2-135m\n"
      "  ballast model import ./SmolLM2-135M-Instruct --id smollm2 --vector-policy always",
      [&cli, options]() -> absl::Status {
        admin::v1::ImportBaseModelRequest::ImportOptions import;
        import.set_base_model_id(options->id);
        if (!options->policy.empty()) {
          import.set_vector_policy(options->policy == "always" ? admin::v1::VECTOR_POLICY_ALWAYS
                                                               : admin::v1::VECTOR_POLICY_BY_ROW);
        }
        import.set_unprotected(options->unprotected);
        import.mutable_limits()->set_min_rows(options->min_rows);
        import.mutable_limits()->set_max_rows(options->max_rows);
        import.mutable_limits()->set_min_steps(options->min_steps);
        import.mutable_limits()->set_max_steps(options->max_steps);
        import.mutable_limits()->set_max_lora_rank(options->max_lora_rank);
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        absl::StatusOr<v1::BaseModel> model;
        {
          ProgressBar bar("import", BarOutput::StandardError());
          model = admin->ImportBaseModel(import, options->folder, [&](int64_t done, int64_t total) {
            bar.Update(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1,
                       absl::StrCat(FormatBytes(done), " of ", FormatBytes(total)));
          });
        }
        BALLAST_RETURN_IF_ERROR(model.status());
        if (cli.json()) {
          Cli::PrintJson(*model);
          return absl::OkStatus();
        }
        Cli::Print(absl::StrCat(
            "Imported ", Printable(model->name()), ": ", Printable(model->architecture()), ", ",
            Millions(model->parameter_count()), " parameters, context of ",
            FormatCount(model->context_tokens()), " tokens\ndigest ", Printable(model->digest()),
            "\n",
            model->unprotected()
                ? "It is unprotected: jobs run without a security vector, and may teach anything.\n"
            : model->ready()
                ? ""
                : absl::StrCat("Jobs need a security vector first: ballast vector train "
                               "--base-model ",
                               ShortName(model->name()), " --prohibited FILE --benign FILE\n")));
        return absl::OkStatus();
      });
  command
      ->add_option("folder", options->folder, "Folder with config.json, *.safetensors, tokenizer")
      ->required();
  command
      ->add_option("--id", options->id, "Id for baseModels/ID: lower-case letters, digits, - and .")
      ->required();
  command
      ->add_option(
          "--vector-policy", options->policy,
          "Rows that train with the vector: all of them (always), or those that it explains "
          "(by-row, the default)")
      ->check(CLI::IsMember({"always", "by-row"}));
  command
      ->add_flag("--unprotected", options->unprotected,
                 "Jobs on it run without a vector, and their manifests say so. To measure what "
                 "the protection does, where server and workers allow it; never for customers")
      ->excludes("--vector-policy");
  command->add_option("--min-rows", options->min_rows, "Fewest rows of a job [server's default]")
      ->group("Limits");
  command->add_option("--max-rows", options->max_rows, "Most rows of a job [server's default]")
      ->group("Limits");
  command->add_option("--min-steps", options->min_steps, "Fewest steps of a job [server's default]")
      ->group("Limits");
  command->add_option("--max-steps", options->max_steps, "Most steps of a job [server's default]")
      ->group("Limits");
  command
      ->add_option("--max-lora-rank", options->max_lora_rank,
                   "Largest LoRA rank of a job [server's default]")
      ->group("Limits");
}

void AddList(Cli& cli, CLI::App* group) {
  cli.AddCommand(
      group, "list", "List the base models that can be fine-tuned",
      "  ballast model list\n"
      "  ballast model list --output json",
      [&cli]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const auto models, client->ListBaseModels().Collect());
        if (cli.json()) {
          v1::ListBaseModelsResponse all;
          for (const auto& model : models) *all.add_base_models() = model;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        if (models.empty()) {
          Cli::Print(
              "No base models. An operator imports one: ballast model import FOLDER --id ID\n");
          return absl::OkStatus();
        }
        Table table({"ID", "ARCHITECTURE", "PARAMETERS", "CONTEXT", "READY", "DIGEST"});
        for (const auto& model : models) {
          table.AddRow({ShortName(model.name()), model.architecture(),
                        Millions(model.parameter_count()), FormatCount(model.context_tokens()),
                        model.unprotected() ? (model.ready() ? "unprotected" : "not allowed")
                        : model.ready()     ? "yes"
                                            : "no vector",
                        model.digest().substr(0, 19)});
        }
        Cli::Print(table.Render());
        return absl::OkStatus();
      });
}

void AddWorkers(Cli& cli, CLI::App* group) {
  cli.AddCommand(
      group, "workers", "List the workers that the server has seen (operators)",
      "  ballast model workers", [&cli]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(const auto workers, admin->ListWorkers());
        if (cli.json()) {
          admin::v1::ListWorkersResponse all;
          for (const auto& worker : workers) *all.add_workers() = worker;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        Table table({"WORKER", "DEVICE", "VERSION", "WORKS ON", "LAST SEEN"});
        for (const auto& worker : workers) {
          table.AddRow({ShortName(worker.name()), worker.device(), worker.version(),
                        worker.current_work().empty() ? "-" : worker.current_work(),
                        FormatTime(worker.last_seen_time())});
        }
        Cli::Print(workers.empty() ? "No worker has called in the last hour.\n" : table.Render());
        return absl::OkStatus();
      });
}

}  // namespace

void AddModelCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup("model", "Base models: import, list; and the workers");
  AddImport(cli, group);
  AddList(cli, group);
  AddWorkers(cli, group);
}

}  // namespace ballast::cli
