// SPDX-License-Identifier: Apache-2.0
// Whole commands, from the command line to what a server gets and what is printed.
#include "client/cli/cli.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/testing/fake_server.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/base/version.h"

namespace ballast::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int code = 0;
  std::string out, err;

  // The error object of --output json. AddressSanitizer remarks on the text library's swapcontext
  // in a line before it; nothing else may stand there.
  nlohmann::json Error() const {
    const size_t begin = err.rfind("==", 0) == 0 ? err.find('\n') + 1 : 0;
    return nlohmann::json::parse(err.substr(begin))["error"];
  }
};

class CliTest : public ::testing::Test {
 protected:
  CliTest() : folder_(fs::path(::testing::TempDir()) / RandomHex(64)) {
    fs::create_directories(folder_);
  }
  ~CliTest() override { fs::remove_all(folder_); }

  int Main(std::vector<const char*> arguments) {
    Cli cli([this](const std::string& name) -> std::optional<std::string> {
      if (name == "BALLAST_SERVER") return server_.address();
      if (name == "BALLAST_API_KEY") return "key";
      if (name == "BALLAST_TENANT") return "acme";
      return std::nullopt;
    });
    AddModelCommands(cli);
    AddVectorCommands(cli);
    AddDatasetCommands(cli);
    AddJobCommands(cli);
    AddSampleCommand(cli);
    arguments.insert(arguments.begin(), "ballast");
    return cli.Main(static_cast<int>(arguments.size()), arguments.data());
  }

  Outcome Run(std::vector<const char*> arguments) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Outcome outcome;
    outcome.code = Main(std::move(arguments));
    outcome.out = ::testing::internal::GetCapturedStdout();
    outcome.err = ::testing::internal::GetCapturedStderr();
    return outcome;
  }

  // With a standard output that takes nothing.
  Outcome RunOnFullDisk(std::vector<const char*> arguments) {
    std::fflush(stdout);
    const int kept = dup(STDOUT_FILENO);
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    EXPECT_GE(full, 0);
    dup2(full, STDOUT_FILENO);
    ::testing::internal::CaptureStderr();
    Outcome outcome;
    outcome.code = Main(std::move(arguments));
    outcome.err = ::testing::internal::GetCapturedStderr();
    __fpurge(stdout);
    clearerr(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(full);
    return outcome;
  }

  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = (folder_ / name).string();
    EXPECT_OK(WriteFileAtomically(path, bytes));
    return path;
  }

  client::testing::FakeServer server_;
  const fs::path folder_;
};

TEST_F(CliTest, TheVersionIsThatOfTheCode) {
  const Outcome outcome = Run({"--version"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_EQ(outcome.out, absl::StrCat("ballast ", std::string(Version()), "\n"));
}

TEST_F(CliTest, AResultThatIsNotWrittenIsAFailure) {
  server_.list_base_models = [](auto&, const auto&, auto&) { return absl::OkStatus(); };
  EXPECT_EQ(Run({"model", "list"}).code, kExitOk);
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"model", "list"}, {"--version"}, {"--help"}}) {
    const Outcome outcome = RunOnFullDisk(arguments);
    EXPECT_EQ(outcome.code, kExitFailed) << arguments[0];
    EXPECT_THAT(outcome.err, HasSubstr("reason: OUTPUT_NOT_WRITTEN"));
  }
  const Outcome json = RunOnFullDisk({"model", "list", "--output", "json"});
  EXPECT_EQ(json.Error()["reason"], "OUTPUT_NOT_WRITTEN");
  EXPECT_EQ(json.Error()["exit_code"], 1);
}

TEST_F(CliTest, UsageErrorsAreToldInTheFormThatIsAskedFor) {
  const Outcome table = Run({"job", "show"});
  EXPECT_EQ(table.code, kExitUsage);
  EXPECT_THAT(table.err, StartsWith("error: job is required\n"));
  EXPECT_THAT(table.err, HasSubstr("try: add --help"));
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"job", "show", "--output", "json"},
                                             {"--output=json"},
                                             {"--output", "json", "nonsense"},
                                             {"job", "list", "--limit", "many", "--output", "json"},
                                             {"job", "list", "--output=json", "--nonsense"},
                                             {"sample", "hello", "--output", "json"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, kExitUsage) << arguments[0];
    EXPECT_EQ(outcome.Error()["reason"], "USAGE") << outcome.err;
    EXPECT_EQ(outcome.Error()["exit_code"], 2);
    EXPECT_EQ(outcome.out, "");
  }
}

TEST_F(CliTest, DeleteSaysWhatItDeleted) {
  server_.delete_dataset = [](auto&, const auto&, auto&) { return absl::OkStatus(); };
  EXPECT_EQ(Run({"dataset", "delete", "ds-1"}).out, "Deleted ds-1\n");
  const Outcome json = Run({"dataset", "delete", "ds-1", "--output", "json"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["deleted"], "tenants/acme/datasets/ds-1");
}

TEST_F(CliTest, AZeroThatWouldBecomeTheDefaultIsRefused) {
  const std::string rows = Write("rows.jsonl", "{}\n");
  const std::vector<const char*> job = {"job", "create", "--base-model", "m", "--training", "d"};
  const std::vector<const char*> vector = {"vector",   "train",        "--base-model",
                                           "m",        "--prohibited", rows.c_str(),
                                           "--benign", rows.c_str()};
  const std::vector<const char*> sample = {"sample", "--base-model", "m", "hello"};
  struct Case {
    std::vector<const char*> command;
    const char* option;
    const char* field;
  };
  for (const Case& zero :
       {Case{job, "--epochs", "hyperparameters.epochs"},
        Case{job, "--batch-rows", "hyperparameters.batch_rows"},
        Case{job, "--lora-rank", "hyperparameters.lora_rank"},
        Case{job, "--lora-alpha", "hyperparameters.lora_alpha"},
        Case{job, "--seed", "hyperparameters.seed"},
        Case{vector, "--learning-rate", "options.learning_rate"},
        Case{vector, "--epochs", "options.epochs"},
        Case{vector, "--lora-rank", "options.lora_rank"},
        Case{sample, "--max-tokens", "max_tokens"}, Case{sample, "--seed", "seed"}}) {
    std::vector<const char*> arguments = zero.command;
    arguments.insert(arguments.end(), {zero.option, "0", "--output", "json"});
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, kExitUsage) << zero.option;
    EXPECT_EQ(outcome.Error()["reason"], "HYPERPARAMETER_ZERO") << outcome.err;
    EXPECT_EQ(outcome.Error()["violations"][0]["field"], zero.field);
    EXPECT_THAT(outcome.Error()["message"], StartsWith(absl::StrCat(zero.option, " is 0")));
  }
}

TEST_F(CliTest, WhatIsTypedReachesTheServer) {
  v1::Hyperparameters how;
  server_.create_job = [&](auto&, const v1::CreateFineTuningJobRequest& request, auto&) {
    how = request.fine_tuning_job().hyperparameters();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"job", "create", "--base-model", "m", "--training", "d", "--lora-alpha", "0.5",
                 "--seed", "-3"})
                .code,
            kExitOk);
  EXPECT_EQ(how.lora_alpha(), 0.5);
  EXPECT_EQ(how.seed(), -3);
  EXPECT_FALSE(how.has_learning_rate());
}

TEST_F(CliTest, AKlWeightOfZeroIsSentAndAMissingOneIsNot) {
  const std::string rows = Write("rows.jsonl", "{}\n");
  admin::v1::VectorOptions options;
  server_.train_vector = [&](auto&, grpc::ServerReader<admin::v1::TrainVectorRequest>& reader,
                             admin::v1::Vector&) {
    admin::v1::TrainVectorRequest request;
    while (reader.Read(&request)) {
      if (request.has_options()) options = request.options();
    }
    return absl::OkStatus();
  };
  std::vector<const char*> arguments = {"vector",     "train",     "--base-model",
                                        "m",          "--no-wait", "--prohibited",
                                        rows.c_str(), "--benign",  rows.c_str()};
  EXPECT_EQ(Run(arguments).code, kExitOk);
  EXPECT_FALSE(options.has_kl_weight());
  arguments.insert(arguments.end(), {"--kl-weight", "0"});
  EXPECT_EQ(Run(arguments).code, kExitOk);
  EXPECT_TRUE(options.has_kl_weight());
  EXPECT_EQ(options.kl_weight(), 0);
  EXPECT_FALSE(options.has_search_budget());
  arguments.insert(arguments.end(), {"--search", "1h30m"});
  EXPECT_EQ(Run(arguments).code, kExitOk);
  EXPECT_EQ(options.search_budget().seconds(), 90 * 60);
  for (const char* wrong : {"soon", "30", "inf", "-inf"}) {
    arguments.back() = wrong;
    const auto refused = Run(arguments);
    EXPECT_NE(refused.code, kExitOk) << wrong;
    EXPECT_THAT(refused.err, HasSubstr("30m")) << wrong;
  }
}

TEST_F(CliTest, ADataSetIsCalledByItsFileCutBetweenCharacters) {
  std::string called;
  server_.create_dataset = [&](auto&, const v1::CreateDatasetRequest& request, auto&) {
    called = request.dataset().display_name();
    return absl::InternalError("enough");
  };
  std::string name = "x";
  for (int i = 0; i < 60; ++i) name += "\xC3\xA9";
  const std::string path = Write(name, "{}\n");
  Run({"dataset", "upload", path.c_str(), "--base-model", "m"});
  EXPECT_EQ(called, name.substr(0, 99));
}

TEST_F(CliTest, NoDataSetIsCreatedForAPipe) {
  bool created = false;
  server_.create_dataset = [&](auto&, const auto&, auto&) {
    created = true;
    return absl::OkStatus();
  };
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Outcome outcome =
      Run({"dataset", "upload", pipe.c_str(), "--base-model", "m", "--output", "json"});
  EXPECT_EQ(outcome.code, kExitRefused);
  EXPECT_EQ(outcome.Error()["reason"], "FILE_NOT_REGULAR");
  EXPECT_FALSE(created);
}

TEST_F(CliTest, RowsAreCheckedAgainstTheModelsContext) {
  const std::string data = absl::StrCat(getenv("BALLAST_SOURCE_DIR"), "/tests/testdata/");
  const std::string model = (folder_ / "model").string();
  fs::copy(data + "tiny_tokenizer", model);
  std::string words;
  for (int i = 0; i < 1500; ++i) words += "word ";  // more tokens than the model's 1024
  const std::string rows = Write(
      "rows.jsonl", nlohmann::json{{"prompt", "Say it"}, {"completion", words}}.dump() + "\n" +
                        nlohmann::json{{"prompt", "Say it"}, {"completion", "word"}}.dump() + "\n");
  std::vector<const char*> arguments = {"dataset",     "check",    rows.c_str(), "--model-folder",
                                        model.c_str(), "--output", "json"};
  const Outcome missing = Run(arguments);
  EXPECT_EQ(missing.code, kExitNotFound);
  EXPECT_THAT(missing.Error()["message"], HasSubstr("--context-tokens"));

  fs::copy(data + "tiny_llama/config.json", model);
  const Outcome fitting = Run(arguments);
  EXPECT_EQ(fitting.code, kExitOk) << fitting.err;
  EXPECT_EQ(nlohmann::json::parse(fitting.out)["countsByReason"]["TOO_LONG"], "1") << fitting.out;

  arguments.insert(arguments.end(), {"--context-tokens", "100000"});
  const Outcome told = Run(arguments);
  EXPECT_EQ(nlohmann::json::parse(told.out)["rowsAccepted"], "2") << told.out;
}

}  // namespace
}  // namespace ballast::cli
