// SPDX-License-Identifier: Apache-2.0
// ballast delta download | verify
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "client/cli/link_options.h"
#include "client/cli/progress_bar.h"
#include "common/artifact/manifest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

// OK when the folder is what its manifest says and the manifest has the digest `expected` (where
// given).
absl::Status CheckFolder(const std::string& folder, const std::string& expected,
                         artifact::VerifyResult* result) {
  BALLAST_ASSIGN_OR_RETURN(*result, artifact::VerifyFolder(folder));
  if (!expected.empty() && result->manifest_digest != expected) {
    return MakeError(
        absl::StatusCode::kDataLoss, "MANIFEST_DIGEST_MISMATCH",
        absl::StrCat(folder, "/manifest.json has the digest ", result->manifest_digest, " and not ",
                     expected, "; this is another delta, or it was changed. Download it again"));
  }
  if (result->problems.empty()) return absl::OkStatus();
  std::string message = absl::StrCat(folder, " is not what its manifest says: ");
  for (size_t i = 0; i < result->problems.size(); ++i) {
    if (i == 5) {
      absl::StrAppend(&message, "; and ", result->problems.size() - i, " more");
      break;
    }
    absl::StrAppend(&message, i > 0 ? "; " : "", result->problems[i].path, ": ",
                    result->problems[i].message);
  }
  return MakeError(absl::StatusCode::kDataLoss, result->problems[0].reason,
                   absl::StrCat(message, ". Download it again"));
}

void PrintVerified(const Cli& cli, const std::string& folder,
                   const artifact::VerifyResult& result) {
  if (cli.json()) {
    nlohmann::json files = nlohmann::json::array();
    for (const auto& file : result.manifest.files) {
      files.push_back(
          {{"path", file.path}, {"sizeBytes", file.size_bytes}, {"digest", file.digest}});
    }
    Cli::Print(nlohmann::json{{"folder", folder},
                              {"manifestDigest", result.manifest_digest},
                              {"job", result.manifest.job},
                              {"baseModel", result.manifest.base_model},
                              {"baseDigest", result.manifest.base_digest},
                              {"protected", !result.manifest.unprotected},
                              {"certified", result.manifest.certified},
                              {"gate", result.manifest.gate},
                              {"files", files}}
                   .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
               "\n");
    return;
  }
  Table table({"FILE", "SIZE", "SHA-256"});
  for (const auto& file : result.manifest.files) {
    table.AddRow({file.path, FormatBytes(file.size_bytes), file.digest.substr(7, 16)});
  }
  Cli::Print(absl::StrCat(
      table.Render(), "\nVerified ", Printable(folder), ": ", result.manifest.files.size(),
      " files as the manifest says\njob       ", Printable(result.manifest.job), "\nbase      ",
      Printable(result.manifest.base_model), " ", Printable(result.manifest.base_digest),
      "\nmanifest  ", result.manifest_digest,
      result.manifest.unprotected ? "\nprotected no: its base model is marked as unprotected"
      : result.manifest.certified ? "\ncertified yes"
                                  : "\ncertified no: how far the protection holds was not measured",
      result.manifest.gate.empty() ? "" : "\ngate      ", Printable(result.manifest.gate), "\n"));
}

void AddDownload(Cli& cli, CLI::App* group) {
  struct Options {
    std::string job, folder;
    bool no_links = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "download", "Download a job's delta and verify it",
      "  ballast delta download job-0123 --to ./adapter\n"
      "An interrupted download goes on when the command is repeated.",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
        absl::StatusOr<v1::DeltaManifest> manifest;
        {
          ProgressBar bar("download", BarOutput::StandardError());
          client::DownloadOptions download;
          download.progress = [&](int64_t done, int64_t total) {
            bar.Update(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1,
                       absl::StrCat(FormatBytes(done), " of ", FormatBytes(total)));
          };
          download.links = !options->no_links;
          download.on_fallback = [&](const absl::Status& why) { bar.Note(NoteOfFallback(why)); };
          manifest = client->DownloadDelta(options->job, options->folder, download);
        }
        BALLAST_RETURN_IF_ERROR(manifest.status());
        artifact::VerifyResult result;
        BALLAST_RETURN_IF_ERROR(CheckFolder(options->folder, manifest->digest(), &result));
        PrintVerified(cli, options->folder, result);
        return absl::OkStatus();
      });
  command->add_option("job", options->job, "Id of the job")->required();
  command->add_option("--to", options->folder, "Folder to write; made when missing")->required();
  AddNoLinksFlag(command, options->no_links);
}

void AddVerify(Cli& cli, CLI::App* group) {
  struct Options {
    std::string folder, digest, job;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "verify", "Check a downloaded delta against its manifest",
      "  ballast delta verify ./adapter\n"
      "  ballast delta verify ./adapter --job job-0123        # and against the server's record\n"
      "  ballast delta verify ./adapter --digest sha256:…     # and against a digest noted before",
      [&cli, options]() -> absl::Status {
        std::string expected = options->digest;
        if (!options->job.empty()) {
          BALLAST_ASSIGN_OR_RETURN(auto client, cli.TenantClient());
          BALLAST_ASSIGN_OR_RETURN(const auto job, client->GetJob(options->job));
          if (job.manifest_digest().empty()) {
            return MakeError(absl::StatusCode::kFailedPrecondition, "DELTA_NOT_FOUND",
                             absl::StrCat("job ", ShortName(job.name()),
                                          " has no delta; only a job that SUCCEEDED has one"));
          }
          expected = job.manifest_digest();
        }
        artifact::VerifyResult result;
        BALLAST_RETURN_IF_ERROR(CheckFolder(options->folder, expected, &result));
        PrintVerified(cli, options->folder, result);
        return absl::OkStatus();
      });
  command->add_option("folder", options->folder, "Folder of the delta")->required();
  auto* digest = command->add_option("--digest", options->digest,
                                     "Digest that the manifest must have, \"sha256:<hex>\"");
  command->add_option("--job", options->job, "Job whose record on the server must agree")
      ->excludes(digest);
}

}  // namespace

void AddDeltaCommands(Cli& cli) {
  CLI::App* group = cli.AddGroup("delta", "Deltas, what jobs have learned: download, verify");
  AddDownload(cli, group);
  AddVerify(cli, group);
}

}  // namespace ballast::cli
