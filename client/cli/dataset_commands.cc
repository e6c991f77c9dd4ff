// SPDX-License-Identifier: Apache-2.0
// ballast dataset check | upload | show | list | delete
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/cli/dataset_report.h"
#include "client/cli/format.h"
#include "client/cli/link_options.h"
#include "client/cli/progress_bar.h"
#include "common/artifact/model_config.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "common/dataset/checker.h"

namespace ballast::cli {
namespace {

constexpr char kFormats[] = "Shape of the rows: auto, openai, prompt, alpaca or sharegpt";

// The same names for the offline check and the API.
struct FormatName {
  const char* name;
  dataset::Format format;
  v1::Dataset::Format proto;
};
constexpr FormatName kFormatNames[] = {
    {"auto", dataset::Format::kAuto, v1::Dataset::FORMAT_UNSPECIFIED},
    {"openai", dataset::Format::kOpenAiChat, v1::Dataset::OPENAI_CHAT},
    {"prompt", dataset::Format::kPromptCompletion, v1::Dataset::PROMPT_COMPLETION},
    {"alpaca", dataset::Format::kAlpaca, v1::Dataset::ALPACA},
    {"sharegpt", dataset::Format::kShareGpt, v1::Dataset::SHAREGPT},
};

const FormatName& FindFormat(const std::string& name) {
  for (const FormatName& format : kFormatNames) {
    if (format.name == name) return format;
  }
  return kFormatNames[0];  // the option's check admits no other
}

void AddFormatOption(CLI::App* command, std::string& format) {
  command->add_option("--format", format, kFormats)
      ->check(CLI::IsMember({"auto", "openai", "prompt", "alpaca", "sharegpt"}))
      ->capture_default_str();
}

// The failure that a data set without an accepted row is.
absl::Status NoRows(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "NO_ROWS_ACCEPTED",
                   absl::StrCat("no row of ", what,
                                " can be trained on; the report says why, line "
                                "by line"));
}

// The longest row that the model in `folder` can be trained on, as the server takes it.
absl::StatusOr<int64_t> ContextTokensOf(const std::string& folder) {
  constexpr char kInstead[] = "without --context-tokens the model's config.json is needed";
  const absl::StatusOr<std::string> json = ReadFile(folder + "/config.json", 1 << 20);
  if (!json.ok()) return Annotate(json.status(), kInstead);
  const absl::StatusOr<artifact::ModelConfig> config = artifact::ParseModelConfig(*json);
  if (!config.ok()) return Annotate(config.status(), kInstead);
  return config->context_tokens;
}

void AddCheck(Cli& cli, CLI::App* group) {
  struct Options {
    std::string file, folder, format = "auto";
    int64_t context_tokens = 0;  // 0: the model's
    size_t max_issues = 20;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "check", "Check a file's rows on this machine, as the server would",
      "  ballast dataset check train.jsonl --model-folder ./SmolLM2-135M-Instruct\n"
      "  ballast dataset check train.jsonl --model-folder ./SmolLM2-135M-Instruct --output json",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(const text::ModelText text,
                                 text::ModelText::FromFolder(options->folder));
        dataset::CheckOptions check;
        check.format = FindFormat(options->format).format;
        check.context_tokens = options->context_tokens;
        if (check.context_tokens == 0) {
          BALLAST_ASSIGN_OR_RETURN(check.context_tokens, ContextTokensOf(options->folder));
        }
        dataset::Checker checker(text, check, nullptr);
        BALLAST_ASSIGN_OR_RETURN(const int64_t total, FileSize(options->file));
        {
          ProgressBar bar("check", BarOutput::StandardError());
          int64_t done = 0;
          absl::Status fed = absl::OkStatus();
          BALLAST_RETURN_IF_ERROR(ForEachChunk(options->file, 1 << 18, [&](std::string_view bytes) {
            fed = checker.Feed(bytes);
            done += static_cast<int64_t>(bytes.size());
            bar.Update(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1,
                       absl::StrCat(FormatBytes(done), " of ", FormatBytes(total)));
            return fed.ok();
          }));
          BALLAST_RETURN_IF_ERROR(fed);
        }
        BALLAST_ASSIGN_OR_RETURN(const dataset::Report report, checker.Finish());
        if (cli.json()) {
          Cli::PrintJson(ToProto(report));
        } else {
          Cli::Print(DescribeReport(ToProto(report), options->max_issues));
        }
        return report.rows_accepted > 0 ? absl::OkStatus() : NoRows(options->file);
      });
  command->add_option("file", options->file, "JSONL file")->required();
  command
      ->add_option("--model-folder", options->folder,
                   "Folder of the base model: its tokenizer, chat template and config.json are "
                   "used")
      ->required();
  AddFormatOption(command, options->format);
  command
      ->add_option("--context-tokens", options->context_tokens,
                   "Longest row in tokens [that of the model's config.json]")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-issues", options->max_issues, "Issues to show")->capture_default_str();
}

void AddUpload(Cli& cli, CLI::App* group) {
  struct Options {
    std::string file, base_model, format = "auto", display_name, resume;
    bool no_wait = false, no_links = false;
    size_t max_issues = 20;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "upload", "Upload a data set; its rows are checked as they arrive",
      "  ballast dataset upload train.jsonl --base-model smollm2\n"
      "  ballast dataset upload train.jsonl --resume ds-0123   # goes on with an interrupted "
      "upload",
      [&cli, options]() -> absl::Status {
        if (options->base_model.empty() == options->resume.empty()) {
          return WithExitCode(MakeError(absl::StatusCode::kInvalidArgument, "USAGE",
                                        "give --base-model for a new data set, or --resume with "
                                        "the data set whose upload was interrupted"),
                              kExitUsage);
        }
        // Before a data set is created for it.
        BALLAST_RETURN_IF_ERROR(client::Client::CheckUploadFile(options->file));
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        std::string name = client->DatasetName(options->resume);
        if (options->resume.empty()) {
          v1::Dataset request;
          request.set_base_model(client::Client::BaseModelName(options->base_model));
          request.set_format(FindFormat(options->format).proto);
          request.set_display_name(
              options->display_name.empty()
                  ? ValidUtf8(std::filesystem::path(options->file).filename().string(), 100)
                  : options->display_name);
          BALLAST_ASSIGN_OR_RETURN(const v1::Dataset created, client->CreateDataset(request));
          name = created.name();
          std::fprintf(stderr, "Data set %s; after an interruption go on with --resume %s\n",
                       ShortName(name).c_str(), ShortName(name).c_str());
        }
        absl::StatusOr<v1::Dataset> dataset;
        {
          ProgressBar bar("upload", BarOutput::StandardError());
          client::UploadOptions upload;
          upload.progress = [&](int64_t done, int64_t total) {
            bar.Update(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1,
                       absl::StrCat(FormatBytes(done), " of ", FormatBytes(total)));
          };
          upload.links = !options->no_links;
          upload.on_fallback = [&](const absl::Status& why) { bar.Note(NoteOfFallback(why)); };
          dataset = client->UploadDataset(name, options->file, upload);
        }
        if (!dataset.ok()) {
          return Annotate(dataset.status(),
                          absl::StrCat("upload to ", ShortName(name), " (go on with --resume ",
                                       ShortName(name), ")"));
        }
        if (!options->no_wait) {
          dataset = client->WaitForValidation(name);
          BALLAST_RETURN_IF_ERROR(dataset.status());
        }
        if (cli.json()) {
          Cli::PrintJson(*dataset);
        } else {
          Cli::Print(absl::StrCat(
              "Data set ", ShortName(dataset->name()), " is ",
              v1::Dataset::State_Name(dataset->state()), "\n",
              dataset->has_report() ? DescribeReport(dataset->report(), options->max_issues) : ""));
        }
        return dataset->state() == v1::Dataset::INVALID ? NoRows(ShortName(name))
                                                        : absl::OkStatus();
      });
  command->add_option("file", options->file, "JSONL file")->required();
  command->add_option("--base-model", options->base_model,
                      "Base model that the rows are counted and checked for");
  command->add_option("--resume", options->resume, "Data set whose upload was interrupted");
  AddFormatOption(command, options->format);
  command->add_option("--name", options->display_name, "Name for people [the file's]");
  command->add_flag("--no-wait", options->no_wait, "Return once the bytes are stored");
  AddNoLinksFlag(command, options->no_links);
  command->add_option("--max-issues", options->max_issues, "Issues to show")->capture_default_str();
}

void AddShow(Cli& cli, CLI::App* group) {
  struct Options {
    std::string id;
    size_t max_issues = 20;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "show", "Show a data set and the report of its row checks",
      "  ballast dataset show ds-0123\n"
      "  ballast dataset show ds-0123 --max-issues 1000",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const v1::Dataset dataset, client->GetDataset(options->id));
        if (cli.json()) {
          Cli::PrintJson(dataset);
          return absl::OkStatus();
        }
        Cli::Print(absl::StrCat(
            "name        ", Printable(dataset.name()), "\n", "called      ",
            Printable(dataset.display_name()), "\n", "base model  ",
            Printable(dataset.base_model()), "\n", "state       ",
            v1::Dataset::State_Name(dataset.state()), "\n", "size        ",
            FormatBytes(dataset.size_bytes()), "\n", "digest      ",
            dataset.digest().empty() ? "-" : Printable(dataset.digest()), "\n", "created     ",
            FormatTime(dataset.create_time()), "\n",
            dataset.has_report()
                ? absl::StrCat("\n", DescribeReport(dataset.report(), options->max_issues))
                : ""));
        return absl::OkStatus();
      });
  command->add_option("dataset", options->id, "Id of the data set")->required();
  command->add_option("--max-issues", options->max_issues, "Issues to show")->capture_default_str();
}

void AddList(Cli& cli, CLI::App* group) {
  cli.AddCommand(
      group, "list", "List data sets, newest first", "  ballast dataset list",
      [&cli]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        BALLAST_ASSIGN_OR_RETURN(const auto datasets, client->ListDatasets().Collect());
        if (cli.json()) {
          v1::ListDatasetsResponse all;
          for (const auto& dataset : datasets) *all.add_datasets() = dataset;
          Cli::PrintJson(all);
          return absl::OkStatus();
        }
        Table table({"ID", "CALLED", "BASE MODEL", "STATE", "ROWS", "SIZE", "CREATED"});
        for (const auto& dataset : datasets) {
          table.AddRow({ShortName(dataset.name()), dataset.display_name(),
                        ShortName(dataset.base_model()), v1::Dataset::State_Name(dataset.state()),
                        FormatCount(dataset.report().rows_accepted()),
                        FormatBytes(dataset.size_bytes()), FormatTime(dataset.create_time())});
        }
        Cli::Print(datasets.empty() ? "No data sets. Upload one: ballast dataset upload --help\n"
                                    : table.Render());
        return absl::OkStatus();
      });
}

void AddDelete(Cli& cli, CLI::App* group) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      cli.AddCommand(group, "delete", "Delete a data set and its bytes",
                     "  ballast dataset delete ds-0123", [&cli, id]() -> absl::Status {
                       BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
                       BALLAST_RETURN_IF_ERROR(client->DeleteDataset(*id));
                       cli.PrintDeleted(client->DatasetName(*id));
                       return absl::OkStatus();
                     });
  command->add_option("dataset", *id, "Id of the data set")->required();
}

}  // namespace

void AddDatasetCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup("dataset", "Data sets: check, upload, show, list, delete");
  AddCheck(cli, group);
  AddUpload(cli, group);
  AddShow(cli, group);
  AddList(cli, group);
  AddDelete(cli, group);
}

}  // namespace ballast::cli
