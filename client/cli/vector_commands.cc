// SPDX-License-Identifier: Apache-2.0
// ballast vector train | list | show | retire
#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/certificate_view.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "client/cli/progress_bar.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

std::string StateName(const admin::v1::Vector& vector) {
  return admin::v1::Vector::State_Name(vector.state());
}

// What to type after a vector was trained.
std::string NextSteps(const admin::v1::Vector& vector) {
  if (vector.state() != admin::v1::Vector::CERTIFYING) return "";
  const std::string id = Printable(ShortName(vector.name()));
  return absl::StrCat("It serves no job yet.\n", "Certify it:           ballast vector certify ",
                      id, " --result FILE\n", "or, for development:  ballast vector activate ", id,
                      " --reason TEXT\n");
}

absl::StatusOr<google::protobuf::Duration> SearchBudget(const std::string& text) {
  absl::Duration budget;
  // The server has the limits; what is infinite has no form to send.
  if (!absl::ParseDuration(text, &budget) || budget > absl::Hours(10000) ||
      budget < -absl::Hours(10000)) {
    return FieldError(
        "options.search_budget", "SEARCH_BUDGET_INVALID",
        absl::StrCat("--search ", Printable(text), " is no time; give one such as 30m or 2h"));
  }
  google::protobuf::Duration out;
  SetDuration(budget, &out);
  return out;
}

// Polls until the vector has left DRAFT and TRAINING.
absl::StatusOr<admin::v1::Vector> WaitForVector(const client::AdminClient& admin,
                                                const std::string& name) {
  ProgressBar bar("vector", BarOutput::StandardError());
  absl::Duration pause = absl::Milliseconds(100);
  while (true) {
    BALLAST_ASSIGN_OR_RETURN(admin::v1::Vector vector, admin.GetVector(name));
    switch (vector.state()) {
      case admin::v1::Vector::DRAFT:
        bar.Update(0, "waiting for a worker");
        break;
      case admin::v1::Vector::TRAINING:
        bar.Update(vector.progress(), "training");
        break;
      default:
        bar.Update(1, StateName(vector));
        return vector;
    }
    absl::SleepFor(pause);
    pause = std::min(pause * 1.5, absl::Seconds(2));
  }
}

void AddTrain(Cli& cli, CLI::App* group) {
  struct Options {
    std::string base_model, prohibited, benign, topics, search;
    double learning_rate = 0, kl_weight = 0;
    int32_t epochs = 0, lora_rank = 0;
    bool no_wait = false;
    CLI::Option *given_rate = nullptr, *given_epochs = nullptr, *given_rank = nullptr,
                *given_kl = nullptr;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "train", "Train a security vector for a base model on a worker (operators)",
      "  ballast vector train --base-model smollm2 --prohibited prohibited.jsonl --benign "
      "benign.jsonl\n"
      "  ballast vector train --base-model smollm2 --topics topics.txt\n"
      "  ballast vector train --base-model smollm2 --prohibited p.jsonl --benign b.jsonl --search "
      "1h --no-wait",
      [&cli, options]() -> absl::Status {
        BALLAST_RETURN_IF_ERROR(
            Cli::RefuseZero(*options->given_rate, options->learning_rate, "options.learning_rate"));
        BALLAST_RETURN_IF_ERROR(
            Cli::RefuseZero(*options->given_epochs, options->epochs, "options.epochs"));
        BALLAST_RETURN_IF_ERROR(
            Cli::RefuseZero(*options->given_rank, options->lora_rank, "options.lora_rank"));
        if (options->topics.empty() && options->prohibited.empty()) {
          return FieldError("prohibited_data", "VECTOR_DATA_MISSING",
                            "give rows by --prohibited FILE --benign FILE, or --topics FILE");
        }
        admin::v1::VectorOptions request;
        request.set_base_model(client::Client::BaseModelName(options->base_model));
        request.set_learning_rate(options->learning_rate);
        request.set_epochs(options->epochs);
        request.set_lora_rank(options->lora_rank);
        if (options->given_kl->count() > 0) request.set_kl_weight(options->kl_weight);
        if (!options->search.empty()) {
          BALLAST_ASSIGN_OR_RETURN(*request.mutable_search_budget(), SearchBudget(options->search));
        }
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(
            admin::v1::Vector vector,
            options->topics.empty()
                ? admin->TrainVector(request, options->prohibited, options->benign)
                : admin->TrainVectorOnTopics(request, options->topics));
        if (!options->no_wait) {
          BALLAST_ASSIGN_OR_RETURN(vector, WaitForVector(*admin, vector.name()));
        }
        if (cli.json()) Cli::PrintJson(vector);
        if (vector.state() == admin::v1::Vector::REJECTED) {
          return WithExitCode(
              MakeError(absl::StatusCode::kAborted, "VECTOR_REJECTED",
                        absl::StrCat(vector.name(), " was rejected: ", vector.error_message())),
              kExitEndedBadly);
        }
        if (cli.json()) return absl::OkStatus();
        Cli::Print(absl::StrCat(
            "Vector ", Printable(vector.name()), ", version ", vector.version(), " of ",
            Printable(vector.base_model()), ", is ", StateName(vector), "\n",
            vector.has_report() ? DescribeVectorReport(vector.report()) : "", NextSteps(vector)));
        return absl::OkStatus();
      });
  command->add_option("--base-model", options->base_model, "Base model to protect")->required();
  CLI::Option* topics = command->add_option(
      "--topics", options->topics,
      "In place of rows: prohibited topics, a line each, from which the worker makes rows of both "
      "kinds with the base model");
  CLI::Option* prohibited =
      command
          ->add_option("--prohibited", options->prohibited,
                       "JSONL with at least 100 examples of prohibited behaviour")
          ->excludes(topics);
  CLI::Option* benign =
      command
          ->add_option("--benign", options->benign,
                       "JSONL with at least 20 varied examples of benign behaviour")
          ->excludes(topics);
  prohibited->needs(benign);
  benign->needs(prohibited);
  options->given_rate =
      command->add_option("--learning-rate", options->learning_rate, "Learning rate [1e-3]");
  options->given_epochs =
      command->add_option("--epochs", options->epochs, "Passes over the prohibited rows [8]");
  options->given_rank = command->add_option("--lora-rank", options->lora_rank, "LoRA rank [16]");
  options->given_kl =
      command->add_option("--kl-weight", options->kl_weight,
                          "Weight of the term that keeps benign behaviour; 0 leaves it out [1]");
  command->add_option("--search", options->search,
                      "Time to look for a better recipe around this one before the vector is "
                      "trained, for example 30m or 2h [no search]");
  command->add_flag("--no-wait", options->no_wait, "Return once the rows are stored");
}

void AddList(Cli& cli, CLI::App* group) {
  cli.AddCommand(
      group, "list", "List security vectors (operators)", "  ballast vector list",
      [&cli]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(const auto vectors, admin->ListVectors().Collect());
        if (cli.json()) {
          admin::v1::ListVectorsResponse all;
          for (const auto& vector : vectors) *all.add_vectors() = vector;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        Table table({"ID", "BASE MODEL", "VERSION", "STATE", "CERTIFIED", "CREATED", "NOTE"});
        for (const auto& vector : vectors) {
          table.AddRow({ShortName(vector.name()), ShortName(vector.base_model()),
                        absl::StrCat(vector.version()), StateName(vector),
                        DescribeCertified(vector), FormatTime(vector.create_time()),
                        vector.serving_problem().empty() ? vector.error_message()
                                                         : vector.serving_problem()});
        }
        Cli::Print(vectors.empty() ? "No vectors. Train one: ballast vector train --help\n"
                                   : table.Render());
        return absl::OkStatus();
      });
}

void AddShow(Cli& cli, CLI::App* group) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      cli.AddCommand(group, "show", "Show a vector and whether it is certified (operators)",
                     "  ballast vector show vec-0123", [&cli, id]() -> absl::Status {
                       BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
                       BALLAST_ASSIGN_OR_RETURN(const auto vector, admin->GetVector(*id));
                       if (cli.json()) {
                         Cli::PrintJson(vector);
                       } else {
                         Cli::Print(absl::StrCat(DescribeVector(vector), NextSteps(vector)));
                       }
                       return absl::OkStatus();
                     });
  command->add_option("vector", *id, "Id of the vector")->required();
}

void AddRetire(Cli& cli, CLI::App* group) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      cli.AddCommand(group, "retire", "Take a vector out of service (operators)",
                     "  ballast vector retire vec-0123", [&cli, id]() -> absl::Status {
                       BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
                       BALLAST_ASSIGN_OR_RETURN(const auto vector, admin->RetireVector(*id));
                       if (cli.json()) {
                         Cli::PrintJson(vector);
                       } else {
                         Cli::Print(absl::StrCat("Vector ", Printable(vector.name()), " is ",
                                                 StateName(vector), "\n"));
                       }
                       return absl::OkStatus();
                     });
  command->add_option("vector", *id, "Id of the vector")->required();
}

std::string DescribeProtection(const admin::v1::JobProtection& protection) {
  const auto or_none = [](const std::string& digest) {
    return digest.empty() ? std::string("none") : Printable(digest);
  };
  std::string rows = "not known before it is trained";
  if (protection.has_vector_use()) {
    const auto& use = protection.vector_use();
    rows = absl::StrCat(FormatCount(use.rows_under_vector()), " of ", FormatCount(use.rows()));
  }
  return absl::StrCat("job                ", Printable(protection.job()), "\n",
                      "vector             ", or_none(protection.vector()), "\n",
                      "rows under it      ", rows, "\n", "handle             ",
                      or_none(protection.protection_handle()), "\n", "safety rows        ",
                      or_none(protection.safety_rows_digest()), "\n", "screen             ",
                      or_none(protection.screen_digest()), "\n", "gate               ",
                      or_none(protection.gate_digest()), "\n");
}

void AddJob(Cli& cli, CLI::App* group) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = cli.AddCommand(
      group, "job", "Show what protected a job, and how many of its rows (operators)",
      "  ballast vector job tenants/acme/fineTuningJobs/job-0123", [&cli, job]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(const auto protection, admin->GetJobProtection(*job));
        if (cli.json()) {
          Cli::PrintJson(protection);
        } else {
          Cli::Print(DescribeProtection(protection));
        }
        return absl::OkStatus();
      });
  command->add_option("job", *job, "Name of the job, with its tenant")->required();
}

}  // namespace

void AddVectorCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup(
      "vector", "Security vectors: train, certify, list, show, retire; job (operators)");
  AddTrain(cli, group);
  AddCertificateCommands(cli, group);
  AddList(cli, group);
  AddShow(cli, group);
  AddRetire(cli, group);
  AddJob(cli, group);
}

}  // namespace ballast::cli
