// SPDX-License-Identifier: Apache-2.0
// The folder of `ballast dev`: keys, configurations and the profile, made on first start.
#ifndef BALLAST_CLIENT_CLI_DEV_LAYOUT_H_
#define BALLAST_CLIENT_CLI_DEV_LAYOUT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::cli {

// Where things are in a data folder.
struct DevPaths {
  explicit DevPaths(const std::string& data_dir);

  std::string data_dir;
  std::string lock;           // dev.lock, held while `ballast dev` runs
  std::string server_config;  // server.yaml
  std::string worker_config;  // worker.yaml
  std::string profile;        // client.yaml
  std::string server_data;    // server/
  std::string address_file;   // server.address, written by the server
  std::string worker_cache;   // worker/
  std::string server_log;     // logs/server.log
  std::string worker_log;     // logs/worker.log
  std::string keys;           // keys/, mode 0700; each file 0600
  std::string tenant_key, operator_key, worker_key, vault_key;
  std::string certificate_key;         // signs certificates
  std::string certificate_public_key;  // for those who verify them
};

// What the command line of `ballast dev` decides.
struct DevOptions {
  uint16_t port = 7070;
  int metrics_port = -1;  // negative: off
  int32_t threads = 0;    // of the worker; 0: its default
  std::string device;     // of the worker; empty: its default
  std::string tenant = "dev";
  bool allow_unprotected = false;
};

// Only one `ballast dev` uses a data folder: holds its lock until destroyed.
class DevLock {
 public:
  // FAILED_PRECONDITION (ALREADY_RUNNING) names the process that holds it.
  static absl::StatusOr<DevLock> Acquire(const std::string& path);
  DevLock(DevLock&& other) noexcept;
  DevLock& operator=(DevLock&&) = delete;
  ~DevLock();

 private:
  explicit DevLock(int fd) : fd_(fd) {}
  int fd_;
};

// Makes folders and whatever key is missing. The vault key is made only while the server has no
// data: a new key could not open vectors that exist. FAILED_PRECONDITION (VAULT_KEY_MISSING).
absl::Status MakeKeys(const DevPaths& paths);

// Writes server.yaml: what is in it stays, but for the addresses, folders and keys of this start.
// CONFIG_INVALID when it was edited into something that is no YAML map.
absl::Status WriteServerConfig(const DevPaths& paths, const DevOptions& options);

// Writes worker.yaml for the server's actual address in the same manner (threads and device are
// those of this start, too), and client.yaml anew.
absl::Status WriteWorkerConfig(const DevPaths& paths, const DevOptions& options,
                               const std::string& server_address);
absl::Status WriteDevProfile(const DevPaths& paths, const DevOptions& options,
                             const std::string& server_address);

// FAILED_PRECONDITION (PORT_IN_USE) when something on this machine listens on 127.0.0.1:`port`. 0
// is free.
absl::Status CheckPortIsFree(uint16_t port, const std::string& option);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_DEV_LAYOUT_H_
