// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CLI_PROFILE_H_
#define BALLAST_CLIENT_CLI_PROFILE_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/config/v1/config.pb.h"

namespace ballast::cli {

// Reads an environment variable; nullopt when unset or empty. Tests replace it.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment ProcessEnvironment();

// Where `ballast dev` keeps everything by default: $XDG_DATA_HOME/ballast or
// ~/.local/share/ballast.
std::string DefaultDataDir(const Environment& environment);

// What the command line was told about the connection; empty means not told.
struct ConnectionFlags {
  std::string server_address;
  std::string api_key_file;
  std::string tenant;
  std::string profile;
  std::string tls_authority_file;
};

// Who a command acts for: which of a profile's keys is used.
enum class Role { kTenant, kOperator };

// What a command connects with.
struct Credentials {
  std::string server_address;
  std::string tenant;
  std::string api_key;
  std::string tls_authority_file;
};

// Puts the connection together. For each part the first that is given counts: the flag, the
// environment (BALLAST_SERVER, BALLAST_API_KEY or BALLAST_API_KEY_FILE, BALLAST_TENANT,
// BALLAST_TLS_AUTHORITY_FILE), the profile. The profile is the flag's file, BALLAST_PROFILE,
// ~/.config/ballast/profile.yaml, or client.yaml in the default data folder of `ballast dev`; only
// the last two may be missing.
//
// INVALID_ARGUMENT: SERVER_NOT_SET, API_KEY_NOT_SET, TENANT_NOT_SET, CONFIG_INVALID.
// NOT_FOUND (FILE_NOT_FOUND): a profile or key file that was named does not exist.
absl::StatusOr<Credentials> ResolveCredentials(const ConnectionFlags& flags,
                                               const Environment& environment, Role role);

// Reads a key file: its first line without surrounding white space. INVALID_ARGUMENT
// (KEY_FILE_EMPTY).
absl::StatusOr<std::string> ReadKeyFile(const std::string& path);

// Writes a profile with mode 0600.
absl::Status WriteProfile(const std::string& path, const config::v1::ClientProfile& profile);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_PROFILE_H_
