// SPDX-License-Identifier: Apache-2.0
// ballast-worker: reads its configuration, builds the parts and joins them; nothing else.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ballast/config/v1/config.pb.h"
#include "common/base/clock.h"
#include "common/base/config_file.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/signature.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "common/text/tokenizer.h"
#include "worker/agent/agent.h"
#include "worker/agent/worker_client.h"
#include "worker/agent/worker_id.h"
#include "worker/thread_waiting.h"
#include "worker/trainer.h"
#include "worker/vault/envelope_vault.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::worker {
namespace {

using ballast::config::v1::WorkerConfig;

constexpr int kExitBadConfig = 2;
constexpr int kDefaultCheckpointSteps = 50;

// The vector is in clear in this process: no core dump, and no reading of its memory by other
// processes of the same user.
absl::Status Harden() {
  const rlimit none = {0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "HARDENING_FAILED",
                     "core dumps cannot be switched off; a worker does not run with them");
  }
  return absl::OkStatus();
}

std::string DefaultWorkerId() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  return agent::NewWorkerId(host);
}

absl::Status CheckConfig(const WorkerConfig& config) {
  const auto required = [](const std::string& value, const char* field) {
    if (!value.empty()) return absl::OkStatus();
    return FieldError(field, "CONFIG_INVALID",
                      absl::StrCat(field, " is missing; every worker needs it"));
  };
  BALLAST_RETURN_IF_ERROR(required(config.server_address(), "server_address"));
  BALLAST_RETURN_IF_ERROR(required(config.api_key_file(), "api_key_file"));
  BALLAST_RETURN_IF_ERROR(required(config.vault_key_file(), "vault_key_file"));
  BALLAST_RETURN_IF_ERROR(required(config.cache_dir(), "cache_dir"));
  if (config.threads() < 0) {
    return FieldError("threads", "CONFIG_INVALID",
                      "threads is negative; 0 means one for each core");
  }
  if (config.worker_id().size() > 63 ||
      config.worker_id().find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                           "0123456789-") != std::string::npos) {
    return FieldError("worker_id", "CONFIG_INVALID",
                      "worker_id may have letters, digits and \"-\", at most 63 characters");
  }
  const std::string& device = config.device();
  if (!device.empty() && device != "cpu" && device != "cuda") {
    return FieldError("device", "CONFIG_INVALID", "device must be \"cpu\", \"cuda\" or empty");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadApiKey(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return MakeError(
        absl::StatusCode::kPermissionDenied, "API_KEY_FILE_INVALID",
        absl::StrCat("the key file ", path, " is open to group or others; run chmod 600 on it"),
        {{"path", path}});
  }
  BALLAST_ASSIGN_OR_RETURN(std::string key, ReadFile(path, 4096));
  absl::StripAsciiWhitespace(&key);
  for (const char c : key) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) key.clear();
    if (key.empty()) break;
  }
  if (key.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "API_KEY_FILE_INVALID",
                     absl::StrCat("the key file ", path, " does not hold one API key"),
                     {{"path", path}});
  }
  return key;
}

absl::StatusOr<std::unique_ptr<agent::WorkerClient>> MakeClient(const WorkerConfig& config) {
  agent::WorkerClientOptions options;
  options.server_address = config.server_address();
  options.worker_id = config.worker_id().empty() ? DefaultWorkerId() : config.worker_id();
  BALLAST_ASSIGN_OR_RETURN(options.api_key, ReadApiKey(config.api_key_file()));
  if (!config.tls_authority_file().empty()) {
    BALLAST_ASSIGN_OR_RETURN(options.tls_authority_pem,
                             ReadFile(config.tls_authority_file(), 1 << 20));
  }
  return agent::WorkerClient::Create(options);
}

// Until the process is asked to stop. The signals are blocked in every thread.
void WaitForSignal(const sigset_t& signals) {
  int number = 0;
  while (sigwait(&signals, &number) != 0) {
  }
  spdlog::info("asked to stop by signal {}; a running job is checkpointed and handed back", number);
  // A second signal ends the process at once.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

absl::Status Run(const WorkerConfig& config, bool check_only) {
  BALLAST_RETURN_IF_ERROR(CheckConfig(config));
  BALLAST_RETURN_IF_ERROR(Harden());
  BALLAST_ASSIGN_OR_RETURN(auto keys, vault::FileKeyProvider::Open(config.vault_key_file()));
  vault::EnvelopeVault vault(std::move(keys));
  BALLAST_ASSIGN_OR_RETURN(const auto client, MakeClient(config));
  agent::AgentOptions options;
  if (!config.certificate_public_key_path().empty()) {
    BALLAST_ASSIGN_OR_RETURN(options.certificate_key,
                             PublicKey::FromFile(config.certificate_public_key_path()));
  }
  options.allow_unprotected = config.allow_unprotected_base_models();
  if (check_only) return absl::OkStatus();

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before the first thread
  signal(SIGPIPE, SIG_IGN);

  EngineOptions engine;
  engine.threads = config.threads();
  engine.device = config.device();
  options.device = config.device().empty() ? "not known yet" : config.device();
  options.version = std::string(Version());
  options.cache_dir = config.cache_dir();
  options.metrics_address = config.metrics_address();
  options.checkpoint_steps = config.checkpoint_steps() == 0  ? kDefaultCheckpointSteps
                             : config.checkpoint_steps() < 0 ? 0
                                                             : config.checkpoint_steps();
  agent::Agent agent(
      options, *client, vault,
      [engine](const std::string& folder) { return LoadEngine(folder, engine); },
      [](const std::string& folder) { return text::ModelText::FromFolder(folder); },
      Clock::System());
  BALLAST_RETURN_IF_ERROR(agent.Start());
  spdlog::info("worker {} {} asks {} for work", client->options().worker_id, options.version,
               config.server_address());
  WaitForSignal(signals);
  agent.Stop();
  spdlog::info("stopped");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app(
      "ballast-worker takes fine-tuning jobs from a ballast-server, trains them under the base "
      "model's "
      "security vector, and gives the adapters back.\n\n"
      "Configuration (YAML; ballast.config.v1.WorkerConfig):\n"
      "  server_address: 127.0.0.1:7070\n"
      "  api_key_file: /etc/ballast/worker.key   # mode 600\n"
      "  vault_key_file: /etc/ballast/vault.key  # mode 600; openssl rand -hex 32\n"
      "  cache_dir: /var/cache/ballast\n"
      "and where wanted worker_id, threads, device, log_level, checkpoint_steps,\n"
      "tls_authority_file, metrics_address, certificate_public_key_path (train only under vectors\n"
      "whose certificate is signed with this key), allow_unprotected_base_models (for "
      "measurements).\n"
      "\n"
      "SIGTERM or SIGINT: the running job is checkpointed and handed back, exit status 0.\n"
      "Exit status 2: the configuration, a key file or the cache folder cannot be used.");
  app.set_version_flag("--version", std::string(Version()));
  std::string config_file;
  bool check_only = false;
  app.add_option("--config", config_file, "The YAML file")->required()->type_name("FILE");
  app.add_flag("--check-config", check_only, "Check configuration and key files, then exit");
  CLI11_PARSE(app, argc, argv);

  WorkerConfig config;
  absl::Status status = LoadConfigFile(config_file, &config);
  if (status.ok()) status = InitLog("ballast-worker", config.log_level());
  if (status.ok()) status = Run(config, check_only);
  if (status.ok()) return 0;
  std::fprintf(stderr, "ballast-worker: %s (%s)\n", std::string(status.message()).c_str(),
               ErrorReason(status).c_str());
  return kExitBadConfig;
}

}  // namespace
}  // namespace ballast::worker

int main(int argc, char** argv) {
  // Rows and models in the cache are for the worker's own user, whatever the shell says.
  umask(0077);
  ballast::worker::ShortenThreadWaits(argv);
  return ballast::worker::Main(argc, argv);
}
