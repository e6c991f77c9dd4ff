// SPDX-License-Identifier: Apache-2.0
#include "client/cli/dev_layout.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/profile.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/signature.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

// A key of 256 random bits. The prefix lets people and secret scanners recognise it.
absl::Status MakeKey(const std::string& path, std::string_view prefix) {
  if (FileExists(path)) return absl::OkStatus();
  return WriteFileAtomically(path, absl::StrCat(std::string(prefix), RandomHex(256), "\n"), 0600);
}

// The key that signs certificates, and beside it the public half for those who verify them.
absl::Status MakeCertificateKey(const DevPaths& paths) {
  if (!FileExists(paths.certificate_key)) {
    BALLAST_RETURN_IF_ERROR(
        WriteFileAtomically(paths.certificate_key, PrivateKey::Generate().ToPem(), 0600));
  }
  BALLAST_ASSIGN_OR_RETURN(const std::string pem, ReadFile(paths.certificate_key, 4096));
  const auto key = PrivateKey::FromPem(pem);
  if (!key.ok()) return Annotate(key.status(), paths.certificate_key);
  return WriteFileAtomically(paths.certificate_public_key, key->public_key().ToPem(), 0600);
}

// Applies `change` to the YAML map in `path` (an empty one when missing) and writes it back.
absl::Status ChangeYaml(const std::string& path, const std::string& comment,
                        const std::function<void(YAML::Node&)>& change) {
  YAML::Node root(YAML::NodeType::Map);
  if (FileExists(path)) {
    BALLAST_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
    try {
      root = YAML::Load(text);
    } catch (const YAML::Exception& error) {
      return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                       absl::StrCat(path, ": ", error.what(), "; correct it or remove the file"));
    }
    if (!root.IsMap()) {
      return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                       absl::StrCat(path, " is no YAML map; correct it or remove the file"));
    }
  }
  change(root);
  YAML::Emitter out;
  out << root;
  return WriteFileAtomically(path, absl::StrCat("# ", comment, "\n", out.c_str(), "\n"), 0600);
}

}  // namespace

DevPaths::DevPaths(const std::string& dir)
    : data_dir(dir),
      lock(dir + "/dev.lock"),
      server_config(dir + "/server.yaml"),
      worker_config(dir + "/worker.yaml"),
      profile(dir + "/client.yaml"),
      server_data(dir + "/server"),
      address_file(dir + "/server.address"),
      worker_cache(dir + "/worker"),
      server_log(dir + "/logs/server.log"),
      worker_log(dir + "/logs/worker.log"),
      keys(dir + "/keys"),
      tenant_key(keys + "/tenant.key"),
      operator_key(keys + "/operator.key"),
      worker_key(keys + "/worker.key"),
      vault_key(keys + "/vault.key"),
      certificate_key(keys + "/certificate.key"),
      certificate_public_key(keys + "/certificate_public.pem") {}

absl::StatusOr<DevLock> DevLock::Acquire(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError(errno, "open", path);
  DevLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError(errno, "lock", path);
    char holder[32] = {};
    const ssize_t n = pread(fd, holder, sizeof(holder) - 1, 0);
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "ALREADY_RUNNING",
        absl::StrCat("another `ballast dev` uses this data folder (process ",
                     n > 0 ? std::string(absl::StripAsciiWhitespace(holder)) : "unknown",
                     "); stop that one, or give another --data-dir and --port"),
        {{"path", path}});
  }
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    return FileError(errno, "write", path);
  }
  return lock;
}

DevLock::DevLock(DevLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

DevLock::~DevLock() {
  if (fd_ >= 0) close(fd_);  // which unlocks
}

absl::Status MakeKeys(const DevPaths& paths) {
  BALLAST_RETURN_IF_ERROR(MakeDirectories(paths.data_dir, 0700));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(paths.data_dir + "/logs", 0700));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(paths.keys, 0700));
  if (!FileExists(paths.vault_key) && FileExists(paths.server_data)) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "VAULT_KEY_MISSING",
        absl::StrCat(paths.vault_key, " is missing, and a new key could not open the vectors that ",
                     paths.server_data,
                     " holds; put the key back from a copy, or start afresh with "
                     "another --data-dir"),
        {{"path", paths.vault_key}});
  }
  BALLAST_RETURN_IF_ERROR(MakeKey(paths.vault_key, ""));
  BALLAST_RETURN_IF_ERROR(MakeCertificateKey(paths));
  BALLAST_RETURN_IF_ERROR(MakeKey(paths.tenant_key, "blt_"));
  BALLAST_RETURN_IF_ERROR(MakeKey(paths.operator_key, "blo_"));
  return MakeKey(paths.worker_key, "blw_");
}

namespace {

// Holds for one start only, like threads and device: a folder that once served measurements must
// not go on to serve customers so.
void SetAllowUnprotected(YAML::Node& root, const DevOptions& options) {
  root.remove("allow_unprotected_base_models");
  if (options.allow_unprotected) root["allow_unprotected_base_models"] = true;
}

}  // namespace

absl::Status WriteServerConfig(const DevPaths& paths, const DevOptions& options) {
  BALLAST_ASSIGN_OR_RETURN(const std::string tenant, ReadKeyFile(paths.tenant_key));
  BALLAST_ASSIGN_OR_RETURN(const std::string operator_key, ReadKeyFile(paths.operator_key));
  BALLAST_ASSIGN_OR_RETURN(const std::string worker, ReadKeyFile(paths.worker_key));
  return ChangeYaml(
      paths.server_config,
      "Of ballast-server. `ballast dev` sets addresses, folders and its own keys on each start "
      "and\n"
      "# keeps the rest.",
      [&](YAML::Node& root) {
        root["data_dir"] = paths.server_data;
        root["listen_address"] = absl::StrCat("127.0.0.1:", options.port);
        root["metrics_address"] = options.metrics_port < 0
                                      ? std::string("off")
                                      : absl::StrCat("127.0.0.1:", options.metrics_port);
        root["address_file"] = paths.address_file;
        root["certificate_key_file"] = paths.certificate_key;
        SetAllowUnprotected(root, options);
        struct Entry {
          std::string digest;
          const char* role;
          std::string tenant;
          const char* label;
        };
        const Entry own[] = {{DigestOf(tenant), "TENANT", options.tenant, "dev-tenant"},
                             {DigestOf(operator_key), "OPERATOR", "", "dev-operator"},
                             {DigestOf(worker), "WORKER", "", "dev-worker"}};
        YAML::Node keys(YAML::NodeType::Sequence);
        for (const Entry& entry : own) {
          YAML::Node key(YAML::NodeType::Map);
          key["digest"] = entry.digest;
          key["role"] = entry.role;
          if (!entry.tenant.empty()) key["tenant"] = entry.tenant;
          key["label"] = entry.label;
          keys.push_back(key);
        }
        // Keys that were added by hand stay.
        if (root["api_keys"] && root["api_keys"].IsSequence()) {
          for (const YAML::Node& key : root["api_keys"]) {
            const std::string label =
                key.IsMap() && key["label"] && key["label"].IsScalar() ? key["label"].Scalar() : "";
            if (label != own[0].label && label != own[1].label && label != own[2].label) {
              keys.push_back(key);
            }
          }
        }
        root["api_keys"] = keys;
      });
}

absl::Status WriteWorkerConfig(const DevPaths& paths, const DevOptions& options,
                               const std::string& server_address) {
  return ChangeYaml(
      paths.worker_config,
      "Of ballast-worker. `ballast dev` sets address, folders, threads and device on each start "
      "and\n"
      "# keeps the rest.",
      [&](YAML::Node& root) {
        root["server_address"] = server_address;
        root["api_key_file"] = paths.worker_key;
        root["vault_key_file"] = paths.vault_key;
        root["cache_dir"] = paths.worker_cache;
        root["worker_id"] = "dev";
        // Without its option each is the worker's default again: what one start was told would
        // otherwise hold for all later ones.
        root.remove("threads");
        root.remove("device");
        if (options.threads > 0) root["threads"] = options.threads;
        if (!options.device.empty()) root["device"] = options.device;
        SetAllowUnprotected(root, options);
      });
}

absl::Status WriteDevProfile(const DevPaths& paths, const DevOptions& options,
                             const std::string& server_address) {
  config::v1::ClientProfile profile;
  profile.set_server_address(server_address);
  profile.set_tenant(options.tenant);
  BALLAST_ASSIGN_OR_RETURN(*profile.mutable_tenant_key(), ReadKeyFile(paths.tenant_key));
  BALLAST_ASSIGN_OR_RETURN(*profile.mutable_operator_key(), ReadKeyFile(paths.operator_key));
  return WriteProfile(paths.profile, profile);
}

absl::Status CheckPortIsFree(uint16_t port, const std::string& option) {
  if (port == 0) return absl::OkStatus();
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return FileError(errno, "open", "a socket");
  const int one = 1;
  // As servers do: connections in TIME_WAIT do not count, listeners do.
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int result = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int error = errno;
  close(fd);
  if (result == 0) return absl::OkStatus();
  if (error == EADDRINUSE) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "PORT_IN_USE",
                     absl::StrCat("port ", port,
                                  " of this machine is in use by another program; stop it, or give "
                                  "another ",
                                  option),
                     {{"port", absl::StrCat(port)}});
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "PORT_NOT_USABLE",
      absl::StrCat("cannot use port ", port, ": ", std::strerror(error), "; give another ", option),
      {{"port", absl::StrCat(port)}});
}

}  // namespace ballast::cli
