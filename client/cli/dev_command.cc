// SPDX-License-Identifier: Apache-2.0
// ballast dev: a server and a worker on this machine, as two programs of their own.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/child_process.h"
#include "client/cli/cli.h"
#include "client/cli/dev_layout.h"
#include "client/cli/format.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kServerStart = absl::Seconds(30);
constexpr absl::Duration kWorkerStart = absl::Seconds(120);  // a cold disk reads libtorch slowly
constexpr absl::Duration kWorkerStop = absl::Seconds(60);    // it may write a checkpoint first
constexpr absl::Duration kServerStop = absl::Seconds(15);

struct Options {
  std::string data_dir;
  std::string bin_dir;
  DevOptions dev;
};

// Looks for a program in --bin-dir, else beside this program, in the build tree that this program
// is in, and on PATH.
absl::StatusOr<std::string> FindProgram(const std::string& name, const std::string& folder,
                                        const Options& options, const Environment& environment) {
  std::vector<fs::path> places;
  if (!options.bin_dir.empty()) {
    places.push_back(fs::path(options.bin_dir) / name);
  } else {
    std::error_code error;
    const fs::path own = fs::read_symlink("/proc/self/exe", error).parent_path();
    if (!error) {
      places.push_back(own / name);
      places.push_back(own / "../.." / folder / name);
    }
    for (const std::string& part :
         std::vector<std::string>(absl::StrSplit(environment("PATH").value_or(""), ':'))) {
      if (!part.empty()) places.push_back(fs::path(part) / name);
    }
  }
  for (const fs::path& place : places) {
    if (access(place.c_str(), X_OK) == 0 && fs::is_regular_file(place)) {
      return place.lexically_normal().string();
    }
  }
  return MakeError(absl::StatusCode::kNotFound, "PROGRAM_NOT_FOUND",
                   absl::StrCat("cannot find ", name,
                                options.bin_dir.empty()
                                    ? " beside this program or on PATH; give its folder with "
                                      "--bin-dir"
                                    : absl::StrCat(" in ", options.bin_dir)),
                   {{"program", name}});
}

// SIGINT, SIGTERM and SIGHUP as something to wait for. Blocks them for this thread and those that
// it starts, so make it before any other.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  // True once a signal has arrived; waits for one at most `timeout`.
  bool Wait(absl::Duration timeout) {
    const timespec wait = absl::ToTimespec(timeout);
    return sigtimedwait(&set_, nullptr, &wait) > 0;
  }

 private:
  sigset_t set_;
};

// The failure that the early end of a child is, with the end of its log.
absl::Status ChildEnded(const std::string& name, const ChildProcess& child) {
  const std::string tail = child.LogTail(5);
  std::fprintf(stderr, "%s ended (%s). The end of %s:\n%s\n", name.c_str(), child.Ending().c_str(),
               child.log_path().c_str(), Printable(tail, /*keep_layout=*/true).c_str());
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "PROGRAM_ENDED",
      absl::StrCat(name, " ended by itself (", child.Ending(), "); its log is ", child.log_path()),
      {{"program", name}, {"log", child.log_path()}});
}

// Waits until `ready` answers true. False when a stop signal came first.
absl::StatusOr<bool> WaitUntil(const std::string& name, ChildProcess& child, StopSignals& signals,
                               absl::Duration patience, const std::function<bool()>& ready) {
  const absl::Time end = absl::Now() + patience;
  while (!ready()) {
    if (!child.Running()) return ChildEnded(name, child);
    if (absl::Now() > end) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "PROGRAM_NOT_READY",
                       absl::StrCat(name, " was not ready within ", absl::FormatDuration(patience),
                                    "; its log is ", child.log_path()),
                       {{"program", name}, {"log", child.log_path()}});
    }
    if (signals.Wait(absl::Milliseconds(50))) return false;
  }
  return true;
}

absl::StatusOr<std::shared_ptr<const client::Connection>> ConnectAs(const std::string& address,
                                                                    const std::string& key_file) {
  client::ConnectionOptions connection;
  connection.server_address = address;
  BALLAST_ASSIGN_OR_RETURN(connection.api_key, ReadKeyFile(key_file));
  connection.deadline = absl::Seconds(5);
  connection.retry.max_attempts = 1;
  return client::Connection::Create(std::move(connection));
}

void PrintWelcome(const DevPaths& paths, const DevOptions& options, const std::string& address,
                  bool has_models, bool default_dir) {
  std::string text = absl::StrCat("\nBallast runs on ", address, ".  Data: ", paths.data_dir, "\n",
                                  "Logs: ", paths.server_log, ", ", paths.worker_log, "\n");
  if (options.metrics_port > 0) {
    absl::StrAppend(&text, "Metrics: http://127.0.0.1:", options.metrics_port, "/metrics\n");
  }
  absl::StrAppend(&text, "\nIn another terminal:\n");
  if (!default_dir) absl::StrAppend(&text, "  export BALLAST_PROFILE=", paths.profile, "\n");
  if (has_models) {
    absl::StrAppend(&text, "  ballast model list\n");
  } else {
    absl::StrAppend(
        &text,
        "  ballast model import FOLDER --id my-model     # a Hugging Face folder\n"
        "  ballast vector train --base-model my-model --prohibited FILE --benign FILE\n"
        "  ballast vector activate VECTOR --reason \"trying it out\"   # or certify it\n");
  }
  absl::StrAppend(&text,
                  "  ballast dataset upload train.jsonl --base-model my-model\n"
                  "  ballast job create --base-model my-model --training DATASET --watch\n"
                  "\nCtrl-C stops both programs. What is stored stays.\n");
  Cli::Print(text);
}

absl::Status RunDev(Cli& cli, const Options& options) {
  StopSignals signals;
  const DevPaths paths(options.data_dir);
  BALLAST_ASSIGN_OR_RETURN(const std::string server_program,
                           FindProgram("ballast-server", "server", options, cli.environment()));
  BALLAST_ASSIGN_OR_RETURN(const std::string worker_program,
                           FindProgram("ballast-worker", "worker", options, cli.environment()));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(paths.data_dir, 0700));
  BALLAST_ASSIGN_OR_RETURN(const DevLock lock, DevLock::Acquire(paths.lock));
  BALLAST_RETURN_IF_ERROR(CheckPortIsFree(options.dev.port, "--port"));
  if (options.dev.metrics_port > 0) {
    BALLAST_RETURN_IF_ERROR(
        CheckPortIsFree(static_cast<uint16_t>(options.dev.metrics_port), "--metrics-port"));
  }
  BALLAST_RETURN_IF_ERROR(MakeKeys(paths));
  BALLAST_RETURN_IF_ERROR(WriteServerConfig(paths, options.dev));

  std::error_code ignored;
  fs::remove(paths.address_file, ignored);  // of a start that was killed
  std::fprintf(stderr, "Starting ballast-server ...\n");
  // Both children are stopped in any case when this function returns: the worker first.
  BALLAST_ASSIGN_OR_RETURN(
      ChildProcess server,
      ChildProcess::Start(server_program, {"--config", paths.server_config}, paths.server_log));
  std::string address;
  BALLAST_ASSIGN_OR_RETURN(const bool served,
                           WaitUntil("ballast-server", server, signals, kServerStart, [&] {
                             const auto text = ReadFile(paths.address_file, 4096);
                             if (text.ok())
                               address = std::string(absl::StripAsciiWhitespace(*text));
                             return !address.empty();
                           }));
  if (!served) return absl::OkStatus();
  BALLAST_RETURN_IF_ERROR(WriteDevProfile(paths, options.dev, address));
  BALLAST_RETURN_IF_ERROR(WriteWorkerConfig(paths, options.dev, address));

  std::fprintf(stderr, "Starting ballast-worker ...\n");
  BALLAST_ASSIGN_OR_RETURN(
      ChildProcess worker,
      ChildProcess::Start(worker_program, {"--config", paths.worker_config}, paths.worker_log));
  BALLAST_ASSIGN_OR_RETURN(auto as_operator, ConnectAs(address, paths.operator_key));
  BALLAST_ASSIGN_OR_RETURN(auto as_tenant, ConnectAs(address, paths.tenant_key));
  const client::AdminClient admin(as_operator);
  const absl::Time started = absl::Now();
  BALLAST_ASSIGN_OR_RETURN(
      const bool connected, WaitUntil("ballast-worker", worker, signals, kWorkerStart, [&] {
        const auto workers = admin.ListWorkers();
        if (!workers.ok()) return false;
        for (const auto& info : *workers) {
          // The server remembers the worker of an earlier start for an hour.
          if (absl::FromUnixSeconds(info.last_seen_time().seconds()) + absl::Seconds(1) >=
              started) {
            return true;
          }
        }
        return false;
      }));
  if (connected) {
    const auto models = client::Client(as_tenant, options.dev.tenant).ListBaseModels().Collect(1);
    PrintWelcome(paths, options.dev, address, models.ok() && !models->empty(),
                 options.data_dir == DefaultDataDir(cli.environment()));
    while (!signals.Wait(absl::Milliseconds(200))) {
      if (!worker.Running()) return ChildEnded("ballast-worker", worker);
      if (!server.Running()) return ChildEnded("ballast-server", server);
    }
  }
  std::fprintf(stderr, "Stopping ballast-worker and ballast-server ...\n");
  worker.Stop(kWorkerStop);
  server.Stop(kServerStop);
  return absl::OkStatus();
}

}  // namespace

void AddDevCommand(Cli& cli) {
  auto options = std::make_shared<Options>();
  options->data_dir = DefaultDataDir(cli.environment());
  CLI::App* command = cli.AddCommand(
      &cli.app(), "dev", "Run a server and a worker on this machine",
      "  ballast dev\n"
      "  ballast dev --data-dir ./ballast-data --port 7170\n"
      "The first start makes keys, configurations and a profile in the data folder; the other\n"
      "commands find the profile there, or through BALLAST_PROFILE.",
      [&cli, options]() -> absl::Status {
        std::error_code error;
        const std::string absolute = fs::absolute(options->data_dir, error).lexically_normal();
        if (!error) options->data_dir = absolute;
        return RunDev(cli, *options);
      });
  command->add_option("--data-dir", options->data_dir, "Folder of keys, database, blobs and logs")
      ->capture_default_str();
  command->add_option("--port", options->dev.port, "Port on 127.0.0.1; 0 takes a free one")
      ->capture_default_str();
  command
      ->add_option("--metrics-port", options->dev.metrics_port,
                   "Port of the Prometheus metrics on 127.0.0.1 [off]")
      ->check(CLI::Range(1, 65535));
  command->add_option("--bin-dir", options->bin_dir,
                      "Folder of ballast-server and ballast-worker [found beside this program]");
  command->add_flag("--allow-unprotected", options->dev.allow_unprotected,
                    "Let base models be imported as unprotected and jobs on them run, for this "
                    "start; to measure what the protection does");
  command->add_option("--threads", options->dev.threads, "Threads of the worker [number of cores]")
      ->check(CLI::PositiveNumber);
  command->add_option("--device", options->dev.device, "Device of the worker: cpu or cuda [found]")
      ->check(CLI::IsMember({"cpu", "cuda"}));
}

}  // namespace ballast::cli
