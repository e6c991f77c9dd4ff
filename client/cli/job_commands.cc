// SPDX-License-Identifier: Apache-2.0
// ballast job create | estimate | list | show | watch | pause | resume | cancel | delete
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/certificate_view.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "client/cli/job_view.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

// What create and estimate take. A hyper-parameter that was not given gets the server's default.
// For those that the API gives no presence zero means that, too, so a zero that was typed is
// refused here.
struct JobOptions {
  std::string base_model, training, validation, display_name, schedule, request_id;
  double learning_rate = 0, lora_alpha = 0, warmup_ratio = 0;
  int32_t epochs = 0, batch_rows = 0, lora_rank = 0;
  int64_t seed = 0;
  std::vector<std::string> labels;
  int priority = 0;
  bool watch = false;
  CLI::Option *given_rate = nullptr, *given_warmup = nullptr, *given_epochs = nullptr,
              *given_batch = nullptr, *given_rank = nullptr, *given_alpha = nullptr,
              *given_seed = nullptr;
};

void AddJobOptions(CLI::App* command, JobOptions& options) {
  command->add_option("--base-model", options.base_model, "Base model to start from")->required();
  command->add_option("--training", options.training, "Data set to train on")->required();
  command->add_option("--validation", options.validation,
                      "Data set that is only evaluated, never trained on");
  command->add_option("--name", options.display_name, "Name for people");
  command
      ->add_option("--priority", options.priority,
                   "Among your jobs that wait, higher ones go first; -10 to 10")
      ->capture_default_str();
  command->add_option("--label", options.labels, "KEY=VALUE; may be given up to 16 times")
      ->allow_extra_args(false);
  options.given_rate = command
                           ->add_option("--learning-rate", options.learning_rate,
                                        "Learning rate after warm-up [2e-4]")
                           ->group("How to train");
  options.given_epochs = command->add_option("--epochs", options.epochs, "Passes over the data [3]")
                             ->group("How to train");
  options.given_batch =
      command->add_option("--batch-rows", options.batch_rows, "Rows per optimizer step [16]")
          ->group("How to train");
  options.given_rank = command->add_option("--lora-rank", options.lora_rank, "LoRA rank [16]")
                           ->group("How to train");
  options.given_alpha =
      command->add_option("--lora-alpha", options.lora_alpha, "LoRA alpha [2 x rank]")
          ->group("How to train");
  options.given_warmup =
      command
          ->add_option("--warmup-ratio", options.warmup_ratio,
                       "Share of the steps over which the learning rate rises [0.03]")
          ->group("How to train");
  command->add_option("--schedule", options.schedule, "How the learning rate falls [cosine]")
      ->check(CLI::IsMember({"cosine", "linear"}))
      ->group("How to train");
  options.given_seed =
      command
          ->add_option("--seed", options.seed,
                       "Seed of initialisation and row order, other than 0 [random]")
          ->group("How to train");
}

absl::Status RefuseZeros(const JobOptions& options) {
  const struct {
    const CLI::Option* option;
    double value;
    const char* field;
  } numbers[] = {{options.given_epochs, static_cast<double>(options.epochs), "epochs"},
                 {options.given_batch, static_cast<double>(options.batch_rows), "batch_rows"},
                 {options.given_rank, static_cast<double>(options.lora_rank), "lora_rank"},
                 {options.given_alpha, options.lora_alpha, "lora_alpha"},
                 {options.given_seed, static_cast<double>(options.seed), "seed"}};
  for (const auto& [option, value, field] : numbers) {
    BALLAST_RETURN_IF_ERROR(
        Cli::RefuseZero(*option, value, absl::StrCat("hyperparameters.", field)));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::FineTuningJob> ToJob(const client::Client& client, const JobOptions& options) {
  BALLAST_RETURN_IF_ERROR(RefuseZeros(options));
  v1::FineTuningJob job;
  job.set_display_name(options.display_name);
  job.set_priority(options.priority);
  job.set_base_model(client::Client::BaseModelName(options.base_model));
  job.set_training_dataset(client.DatasetName(options.training));
  if (!options.validation.empty()) {
    job.set_validation_dataset(client.DatasetName(options.validation));
  }
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return WithExitCode(FieldError("labels", "LABEL_INVALID",
                                     absl::StrCat("--label ", label, " is not KEY=VALUE")),
                          kExitUsage);
    }
    (*job.mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
  v1::Hyperparameters& how = *job.mutable_hyperparameters();
  if (options.given_rate->count() > 0) how.set_learning_rate(options.learning_rate);
  how.set_epochs(options.epochs);
  how.set_batch_rows(options.batch_rows);
  how.set_lora_rank(options.lora_rank);
  how.set_lora_alpha(options.lora_alpha);
  if (options.given_warmup->count() > 0) how.set_warmup_ratio(options.warmup_ratio);
  how.set_seed(options.seed);
  if (!options.schedule.empty()) {
    how.set_schedule(options.schedule == "linear" ? v1::Hyperparameters::LINEAR
                                                  : v1::Hyperparameters::COSINE);
  }
  return job;
}

// What to type after a job has ended.
std::string NextSteps(const v1::FineTuningJob& job) {
  if (job.state() != v1::FineTuningJob::SUCCEEDED) return "";
  const std::string id = ShortName(job.name());
  return absl::StrCat("Get the adapter:  ballast delta download ", id, " --to ./adapter\n",
                      "Try it:           ballast sample --delta ", id, " \"your question\"\n");
}

absl::Status FollowAndReport(Cli& cli, const client::Client& client, const std::string& name,
                             int64_t after_sequence) {
  BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job,
                           Follow(client, name, after_sequence, cli.json()));
  BALLAST_RETURN_IF_ERROR(EndOf(job));
  if (!cli.json()) {
    Cli::Print(absl::StrCat("Job ", ShortName(job.name()), " ", StateName(job.state()), "\n",
                            NextSteps(job)));
  }
  return absl::OkStatus();
}

void AddCreate(Cli& cli, CLI::App* group) {
  auto options = std::make_shared<JobOptions>();
  CLI::App* command = cli.AddCommand(
      group, "create", "Create a fine-tuning job",
      "  ballast job create --base-model smollm2 --training ds-0123 --watch\n"
      "  ballast job create --base-model smollm2 --training ds-0123 --validation ds-4567 \\\n"
      "      --epochs 2 --learning-rate 1e-4 --label team=support",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob request, ToJob(*client, *options));
        BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job,
                                 client->CreateJob(request, options->request_id));
        if (cli.json()) {
          Cli::PrintJson(job, /*one_line=*/options->watch);
        } else {
          Cli::Print(absl::StrCat("Created job ", ShortName(job.name()), ": ",
                                  FormatCount(job.estimate().steps()), " steps over ",
                                  FormatCount(job.estimate().rows()), " rows\n"));
        }
        if (options->watch) return FollowAndReport(cli, *client, job.name(), 0);
        if (!cli.json()) {
          Cli::Print(absl::StrCat("Follow it:  ballast job watch ", ShortName(job.name()), "\n"));
        }
        return absl::OkStatus();
      });
  AddJobOptions(command, *options);
  command->add_option("--request-id", options->request_id,
                      "UUID: creating again with the same one gives the same job [random]");
  command->add_flag("--watch", options->watch, "Follow the job to its end");
}

void AddEstimate(Cli& cli, CLI::App* group) {
  auto options = std::make_shared<JobOptions>();
  CLI::App* command = cli.AddCommand(
      group, "estimate", "Check a job and tell what it would take, without creating it",
      "  ballast job estimate --base-model smollm2 --training ds-0123 --epochs 2",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob request, ToJob(*client, *options));
        BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job, client->EstimateJob(request));
        if (cli.json()) {
          Cli::PrintJson(job);
        } else {
          BALLAST_ASSIGN_OR_RETURN(const v1::BaseModel base,
                                   client->GetBaseModel(options->base_model));
          Cli::Print(absl::StrCat(
              "The job would be accepted.\n", DescribeEstimate(job.estimate()),
              base.limits().has_envelope()
                  ? absl::StrCat("\n", DescribeEnvelope(base.limits().envelope(), &job))
                  : ""));
        }
        return absl::OkStatus();
      });
  AddJobOptions(command, *options);
}

void AddList(Cli& cli, CLI::App* group) {
  auto limit = std::make_shared<size_t>(50);
  CLI::App* command = cli.AddCommand(
      group, "list", "List jobs, newest first", "  ballast job list\n  ballast job list --limit 0",
      [&cli, limit]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const auto jobs, client->ListJobs().Collect(*limit));
        if (cli.json()) {
          v1::ListFineTuningJobsResponse all;
          for (const auto& job : jobs) *all.add_fine_tuning_jobs() = job;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        Table table({"ID", "CALLED", "BASE MODEL", "STATE", "STEPS", "CREATED"});
        for (const auto& job : jobs) {
          // Rows that the screen has left out take no steps.
          const int64_t steps = job.progress().total_steps() > 0 ? job.progress().total_steps()
                                                                 : job.estimate().steps();
          table.AddRow({ShortName(job.name()), job.display_name(), ShortName(job.base_model()),
                        StateName(job.state()), absl::StrCat(job.progress().step(), "/", steps),
                        FormatTime(job.create_time())});
        }
        Cli::Print(jobs.empty() ? "No jobs. Create one: ballast job create --help\n"
                                : table.Render());
        return absl::OkStatus();
      });
  command->add_option("--limit", *limit, "At most so many; 0 for all")->capture_default_str();
}

// A job that was just asked to pause is resumed once its worker has stopped.
absl::StatusOr<v1::FineTuningJob> ResumeWhenPaused(const client::Client& client,
                                                   const std::string& id) {
  constexpr int kTries = 120;
  constexpr absl::Duration kBetweenTries = absl::Seconds(1);
  for (int i = 0;; ++i) {
    auto job = client.ResumeJob(id);
    if (job.ok() || ErrorReason(job.status()) != "JOB_PAUSING" || i == kTries) return job;
    if (i == 0) std::fputs("Waiting for the job's worker to stop ...\n", stderr);
    absl::SleepFor(kBetweenTries);
  }
}

// A command on one job.
void AddJobCommand(Cli& cli, CLI::App* group, const std::string& name,
                   const std::string& description,
                   std::function<absl::Status(const client::Client&, const std::string&)> body) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      cli.AddCommand(group, name, description, absl::StrCat("  ballast job ", name, " job-0123"),
                     [&cli, id, body = std::move(body)]() -> absl::Status {
                       BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
                       return body(*client, *id);
                     });
  command->add_option("job", *id, "Id of the job")->required();
}

}  // namespace

void AddJobCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup(
      "job",
      "Fine-tuning jobs: create, estimate, list, show, watch, pause, resume, cancel, delete");
  AddCreate(cli, group);
  AddEstimate(cli, group);
  AddList(cli, group);
  const auto print = [&cli](const v1::FineTuningJob& job, const std::string& text) {
    if (cli.json()) {
      Cli::PrintJson(job);
    } else {
      Cli::Print(text);
    }
  };
  AddJobCommand(cli, group, "show", "Show a job with its losses at evaluation points",
                [print](const client::Client& client, const std::string& id) -> absl::Status {
                  BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job, client.GetJob(id));
                  print(job, DescribeJob(job));
                  return absl::OkStatus();
                });
  AddJobCommand(cli, group, "watch", "Follow a job to its end",
                [&cli](const client::Client& client, const std::string& id) {
                  return FollowAndReport(cli, client, id, 0);
                });
  const auto ask = [&](const std::string& name, const std::string& description, const auto& call) {
    AddJobCommand(
        cli, group, name, description,
        [print, call](const client::Client& client, const std::string& id) -> absl::Status {
          BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job, call(client, id));
          print(job,
                absl::StrCat("Job ", ShortName(job.name()), " is ", StateName(job.state()), "\n"));
          return absl::OkStatus();
        });
  };
  ask("pause", "Ask a job to stop for a while and keep what it has learned",
      [](const client::Client& client, const std::string& id) { return client.PauseJob(id); });
  ask("resume", "Let a paused job go on", ResumeWhenPaused);
  ask("cancel", "Ask a job to stop for good",
      [](const client::Client& client, const std::string& id) { return client.CancelJob(id); });
  AddJobCommand(cli, group, "delete", "Delete a job that has ended, with its delta",
                [&cli](const client::Client& client, const std::string& id) -> absl::Status {
                  BALLAST_RETURN_IF_ERROR(client.DeleteJob(id));
                  cli.PrintDeleted(client.JobName(id));
                  return absl::OkStatus();
                });
}

}  // namespace ballast::cli
