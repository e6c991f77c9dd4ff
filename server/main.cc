// SPDX-License-Identifier: Apache-2.0
// ballast-server: reads its configuration, builds the parts and joins them; nothing else.
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ballast/config/v1/config.pb.h"
#include "common/base/clock.h"
#include "common/base/config_file.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "server/api/listen_address.h"
#include "server/api/server.h"
#include "server/api/text_row_checks.h"
#include "server/auth/api_key_authenticator.h"
#include "server/auth/file_signer.h"
#include "server/blob/local_blob_store.h"
#include "server/blob/object_blob_store.h"
#include "server/store/data_dir_lock.h"
#include "server/store/postgres_bulletin.h"
#include "server/store/postgres_connection.h"
#include "server/store/postgres_job_store.h"
#include "server/store/sqlite_job_store.h"

namespace ballast::server {
namespace {

constexpr absl::Duration kDrain = absl::Seconds(10);

absl::Status ConfigError(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", what);
}

absl::StatusOr<Quotas> QuotasOf(const config::v1::ServerConfig& config) {
  constexpr double kLeastWeight = 1e-3, kMostWeight = 1e3;
  TenantQuota others;
  std::map<std::string, TenantQuota> by_tenant;
  std::set<std::string> seen;
  for (const config::v1::Quota& from : config.quotas()) {
    const std::string whose =
        from.tenant().empty() ? "the quota of all others" : "the quota of " + from.tenant();
    if (!seen.insert(from.tenant()).second) return ConfigError(whose + " is there twice");
    const auto has_key = [&](const config::v1::ApiKey& key) {
      return key.tenant() == from.tenant();
    };
    if (std::none_of(config.api_keys().begin(), config.api_keys().end(), has_key) &&
        !from.tenant().empty()) {
      return ConfigError(whose + ": no API key is of this tenant");
    }
    if (from.weight() != 0 && !(from.weight() >= kLeastWeight && from.weight() <= kMostWeight)) {
      return ConfigError(whose + ": weight must be between 0.001 and 1000");
    }
    if (from.max_running_jobs() < 0 || from.max_queued_jobs() < 0 || from.max_dataset_bytes() < 0) {
      return ConfigError(whose + ": limits must not be negative");
    }
    TenantQuota quota;
    if (from.weight() != 0) quota.weight = from.weight();
    if (from.max_queued_jobs() != 0) quota.max_queued_jobs = from.max_queued_jobs();
    quota.max_running_jobs = from.max_running_jobs();
    quota.max_dataset_bytes = from.max_dataset_bytes();
    (from.tenant().empty() ? others : by_tenant[from.tenant()]) = quota;
  }
  return Quotas(others, std::move(by_tenant));
}

absl::StatusOr<v1::Money> PriceOf(const config::v1::ServerConfig& config) {
  v1::Money price;
  if (!config.has_price_per_million_tokens()) return price;
  const config::v1::Price& from = config.price_per_million_tokens();
  constexpr double kMostAmount = 1e6, kNanos = 1e9;
  const std::string& code = from.currency_code();
  if (code.size() != 3 || !std::all_of(code.begin(), code.end(), absl::ascii_isupper)) {
    return ConfigError("price_per_million_tokens.currency_code must have three capital letters");
  }
  if (!(from.amount() >= 0 && from.amount() <= kMostAmount)) {
    return ConfigError("price_per_million_tokens.amount must be between 0 and 1,000,000");
  }
  const auto nanos = static_cast<int64_t>(std::llround(from.amount() * kNanos));
  price.set_currency_code(code);
  price.set_units(nanos / 1'000'000'000);
  price.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return price;
}

absl::StatusOr<ServerOptions> OptionsOf(const config::v1::ServerConfig& config) {
  if (config.data_dir().empty())
    return ConfigError("data_dir is missing; give the folder to keep data in");
  if (config.api_keys().empty()) {
    return ConfigError("api_keys is empty, so nobody could call; give at least one");
  }
  if (config.lease_seconds() < 0 || config.max_attempts() < 0 || config.max_dataset_bytes() < 0 ||
      config.withheld_budget() < 0 || config.withheld_expiry_seconds() < 0 ||
      config.retry_seconds() < 0) {
    return ConfigError(
        "lease_seconds, max_attempts, retry_seconds, max_dataset_bytes, withheld_budget and "
        "withheld_expiry_seconds must not be negative");
  }
  if (config.tls_certificate_file().empty() != config.tls_private_key_file().empty()) {
    return ConfigError(
        "tls_certificate_file and tls_private_key_file go together; give both or none");
  }
  ServerOptions options;
  if (!config.listen_address().empty()) options.listen_address = config.listen_address();
  if (!config.metrics_address().empty()) options.metrics_address = config.metrics_address();
  if (config.lease_seconds() > 0) options.lease = absl::Seconds(config.lease_seconds());
  if (config.max_attempts() > 0) options.max_attempts = config.max_attempts();
  if (config.retry_seconds() > 0) options.retry = absl::Seconds(config.retry_seconds());
  if (config.max_dataset_bytes() > 0) options.max_dataset_bytes = config.max_dataset_bytes();
  if (config.withheld_budget() > 0) options.withheld_budget = config.withheld_budget();
  if (config.withheld_expiry_seconds() > 0) {
    options.withheld_expiry = absl::Seconds(config.withheld_expiry_seconds());
  }
  BALLAST_ASSIGN_OR_RETURN(options.quotas, QuotasOf(config));
  BALLAST_ASSIGN_OR_RETURN(options.price_per_million_tokens, PriceOf(config));
  options.allow_unprotected_base_models = config.allow_unprotected_base_models();
  options.scratch_dir = absl::StrCat(config.data_dir(), "/scratch");
  if (!config.tls_certificate_file().empty()) {
    constexpr int64_t kMaxPemBytes = 1 << 20;
    BALLAST_ASSIGN_OR_RETURN(options.tls_certificate,
                             ReadFile(config.tls_certificate_file(), kMaxPemBytes));
    BALLAST_ASSIGN_OR_RETURN(options.tls_private_key,
                             ReadFile(config.tls_private_key_file(), kMaxPemBytes));
  }
  BALLAST_RETURN_IF_ERROR(
      CheckListenAddress(options.listen_address, !options.tls_certificate.empty()));
  return options;
}

constexpr int kConnections = 16, kMostConnections = 1000;

absl::Status CheckPostgres(const config::v1::Postgres& postgres) {
  if (postgres.conninfo().empty()) {
    return FieldError("postgres.conninfo", "CONNINFO_MISSING",
                      "postgres.conninfo is empty; say how to reach the database, for example "
                      "\"host=db dbname=ballast user=ballast\"");
  }
  BALLAST_RETURN_IF_ERROR(PostgresConnection::CheckConninfo(postgres.conninfo()));
  if (postgres.connections() >= 0 && postgres.connections() <= kMostConnections) {
    return absl::OkStatus();
  }
  return FieldError(
      "postgres.connections", "CONNECTIONS_OUT_OF_RANGE",
      absl::StrCat("postgres.connections is ", postgres.connections(), "; give a number from 1 to ",
                   kMostConnections, ", or none for ", kConnections));
}

int ConnectionsOf(const config::v1::Postgres& postgres) {
  return postgres.connections() > 0 ? postgres.connections() : kConnections;
}

std::map<std::string, std::string> OptionsOf(const config::v1::ObjectStore& store) {
  return {store.options().begin(), store.options().end()};
}

absl::StatusOr<std::optional<ObjectBlobStore::LinkOptions>> LinksOf(
    const config::v1::ObjectStore& store) {
  constexpr int kSeconds = 300, kFewest = 30, kMost = 3600;
  if (!store.has_links()) return std::optional<ObjectBlobStore::LinkOptions>();
  const int seconds = store.links().seconds() == 0 ? kSeconds : store.links().seconds();
  if (seconds < kFewest || seconds > kMost) {
    return FieldError(
        "object_store.links.seconds", "SECONDS_OUT_OF_RANGE",
        absl::StrCat("object_store.links.seconds is ", seconds, "; give a number from ", kFewest,
                     " to ", kMost, ", or none for ", kSeconds));
  }
  const ObjectBlobStore::LinkOptions links{absl::Seconds(seconds), store.links().endpoint()};
  BALLAST_RETURN_IF_ERROR(ObjectBlobStore::CheckLinks(store.url(), links));
  return std::optional(links);
}

absl::Status CheckObjectStore(const config::v1::ObjectStore& store) {
  BALLAST_RETURN_IF_ERROR(LinksOf(store).status());
  return ObjectStoreClient::Open(store.url(), OptionsOf(store)).status();
}

// Id of the server whose folder this is: the same over restarts, so that what it was at is free
// when it begins again.
absl::StatusOr<std::string> ServerId(const std::string& data_dir) {
  constexpr int kBits = 64;
  constexpr size_t kDigits = 16;
  constexpr int64_t kMostBytes = 100;
  const std::string path = absl::StrCat(data_dir, "/server_id");
  if (access(path.c_str(), F_OK) != 0) {
    BALLAST_RETURN_IF_ERROR(WriteFileAtomically(path, RandomHex(kBits)));
  }
  BALLAST_ASSIGN_OR_RETURN(std::string id, ReadFile(path, kMostBytes));
  if (id.size() == kDigits && std::all_of(id.begin(), id.end(), absl::ascii_isxdigit)) return id;
  return ConfigError(path + " must have 16 hex digits; delete it, and it is made anew");
}

// Where blobs are kept, in words that are the same for all servers that keep them there.
std::string BlobsIdentity(const config::v1::ServerConfig& config, const std::string& server_id) {
  if (!config.has_object_store()) return absl::StrCat("a folder of its own, ", server_id);
  const auto endpoint = config.object_store().options().find("endpoint");
  std::string url = config.object_store().url();
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (endpoint == config.object_store().options().end()) return url;
  return absl::StrCat(url, " at ", endpoint->second);
}

// Where records are kept.
struct OpenStore {
  static absl::StatusOr<OpenStore> Of(const config::v1::ServerConfig& config,
                                      const std::string& owner) {
    OpenStore opened;
    if (!config.has_postgres()) {
      BALLAST_ASSIGN_OR_RETURN(
          opened.store, SqliteJobStore::Open(absl::StrCat(config.data_dir(), "/ballast.db")));
      return opened;
    }
    const config::v1::Postgres& postgres = config.postgres();
    BALLAST_ASSIGN_OR_RETURN(opened.store,
                             PostgresJobStore::Open(postgres.conninfo(), ConnectionsOf(postgres),
                                                    Clock::System(), owner));
    opened.bulletin = std::make_unique<PostgresBulletin>(postgres.conninfo(), Clock::System());
    return opened;
  }

  std::unique_ptr<JobStore> store;
  std::unique_ptr<PostgresBulletin> bulletin;  // null for SQLite, which one server has for itself
};

absl::StatusOr<std::unique_ptr<BlobStore>> OpenBlobs(const config::v1::ServerConfig& config) {
  if (config.has_object_store()) {
    const config::v1::ObjectStore& store = config.object_store();
    BALLAST_ASSIGN_OR_RETURN(const auto links, LinksOf(store));
    return ObjectBlobStore::Open(store.url(), OptionsOf(store), links);
  }
  return LocalBlobStore::OpenRoot(absl::StrCat(config.data_dir(), "/blobs"));
}

// Waits for SIGTERM or SIGINT, which the caller has blocked in every thread, or for a fault that
// the server cannot go on with, which is returned.
absl::Status WaitForEnd(const sigset_t& signals, const Server& server) {
  constexpr timespec kBetweenLooks = {1, 0};
  while (true) {
    const int signal = sigtimedwait(&signals, nullptr, &kBetweenLooks);
    if (signal > 0) {
      spdlog::info("stopping on signal {}", signal);
      return absl::OkStatus();
    }
    BALLAST_RETURN_IF_ERROR(server.Fault());
  }
}

absl::Status Run(const config::v1::ServerConfig& config, bool check_only) {
  BALLAST_ASSIGN_OR_RETURN(ServerOptions options, OptionsOf(config));
  BALLAST_ASSIGN_OR_RETURN(const auto authenticator,
                           ApiKeyAuthenticator::Create(config.api_keys()));
  std::unique_ptr<FileSigner> signer;
  if (!config.certificate_key_file().empty()) {
    BALLAST_ASSIGN_OR_RETURN(signer, FileSigner::Open(config.certificate_key_file()));
  }
  if (config.has_postgres()) BALLAST_RETURN_IF_ERROR(CheckPostgres(config.postgres()));
  // Before any thread starts, so that all inherit it.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (config.has_object_store()) BALLAST_RETURN_IF_ERROR(CheckObjectStore(config.object_store()));
  if (check_only) return absl::OkStatus();
  signal(SIGPIPE, SIG_IGN);

  BALLAST_ASSIGN_OR_RETURN(const auto lock, DataDirLock::Acquire(config.data_dir()));
  BALLAST_ASSIGN_OR_RETURN(const std::string server_id, ServerId(config.data_dir()));
  BALLAST_ASSIGN_OR_RETURN(const OpenStore opened,
                           OpenStore::Of(config, absl::StrCat(server_id, "/", RandomHex(32))));
  const std::unique_ptr<JobStore>& store = opened.store;
  BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<BlobStore> blobs, OpenBlobs(config));
  options.blobs_identity = BlobsIdentity(config, server_id);
  TextRowChecks row_checks(*blobs, options.scratch_dir);
  BALLAST_ASSIGN_OR_RETURN(
      const auto server, Server::Start({*store, *blobs, *authenticator, row_checks, Clock::System(),
                                        signer.get(), opened.bulletin.get()},
                                       options));
  if (!config.address_file().empty()) {
    BALLAST_RETURN_IF_ERROR(
        WriteFileAtomically(config.address_file(), absl::StrCat(server->address(), "\n")));
  }
  spdlog::info("serving on {}, metrics {}", server->address(),
               options.metrics_address == "off" ? "off" : options.metrics_address);
  const absl::Status ended = WaitForEnd(signals, *server);
  if (!config.address_file().empty()) unlink(config.address_file().c_str());
  server->Stop(kDrain);
  spdlog::info("stopped");
  return ended;
}

}  // namespace
}  // namespace ballast::server

int main(int argc, char** argv) {
  // Rows, records and deltas are for the server's own user, whatever the shell says.
  umask(0077);
  CLI::App app(
      "The server of Ballast: keeps data sets, jobs and deltas, and gives work to workers.\n"
      "Configuration: a YAML file with the fields of ballast.config.v1.ServerConfig, for example\n"
      "  data_dir: /srv/ballast\n"
      "  listen_address: 127.0.0.1:7070\n"
      "  api_keys:\n"
      "    - {digest: \"sha256:<hex>\", role: TENANT, tenant: acme}\n"
      "  postgres: {conninfo: \"host=db dbname=ballast user=ballast\"}  # in place of a file in "
      "data_dir\n"
      "  object_store: {url: \"s3://bucket/prefix\"}  # in place of a folder in data_dir\n"
      "  certificate_key_file: /etc/ballast/certificate.key   # mode 600; signs vectors' "
      "certificates\n"
      "Files that it makes can be read by its own user only.\n"
      "SIGTERM and SIGINT drain it: running calls get 10 seconds. It stops with 2 when it cannot "
      "start.");
  app.set_version_flag("--version", std::string(ballast::Version()));
  std::string config_path;
  bool check_only = false;
  app.add_option("--config", config_path, "The configuration file")->required();
  app.add_flag("--check-config", check_only,
               "Only check the configuration, and say what is wrong with it");
  CLI11_PARSE(app, argc, argv);

  ballast::config::v1::ServerConfig config;
  absl::Status status = ballast::LoadConfigFile(config_path, &config);
  if (status.ok()) status = ballast::InitLog("ballast-server", config.log_level());
  if (status.ok()) status = ballast::server::Run(config, check_only);
  if (status.ok()) return 0;
  std::fprintf(stderr, "ballast-server: %s: %s\n", ballast::ErrorReason(status).c_str(),
               std::string(status.message()).c_str());
  return 2;
}
