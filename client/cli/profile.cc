// SPDX-License-Identifier: Apache-2.0
#include "client/cli/profile.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/config_file.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

std::string Home(const Environment& environment) { return environment("HOME").value_or("/root"); }

absl::StatusOr<config::v1::ClientProfile> FindProfile(const ConnectionFlags& flags,
                                                      const Environment& environment) {
  config::v1::ClientProfile profile;
  const std::string named =
      !flags.profile.empty() ? flags.profile : environment("BALLAST_PROFILE").value_or("");
  if (!named.empty()) {
    BALLAST_RETURN_IF_ERROR(LoadConfigFile(named, &profile));
    return profile;
  }
  const std::string config_home =
      environment("XDG_CONFIG_HOME").value_or(absl::StrCat(Home(environment), "/.config"));
  for (const std::string& path : {absl::StrCat(config_home, "/ballast/profile.yaml"),
                                  absl::StrCat(DefaultDataDir(environment), "/client.yaml")}) {
    if (!FileExists(path)) continue;
    BALLAST_RETURN_IF_ERROR(LoadConfigFile(path, &profile));
    return profile;
  }
  return profile;
}

std::string FirstOf(const std::string& flag, const std::optional<std::string>& variable,
                    const std::string& profile) {
  if (!flag.empty()) return flag;
  return variable.value_or(profile);
}

absl::StatusOr<std::string> FindKey(const ConnectionFlags& flags, const Environment& environment,
                                    const std::string& from_profile) {
  if (!flags.api_key_file.empty()) return ReadKeyFile(flags.api_key_file);
  if (const auto key = environment("BALLAST_API_KEY")) return *key;
  if (const auto file = environment("BALLAST_API_KEY_FILE")) return ReadKeyFile(*file);
  return from_profile;
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

std::string DefaultDataDir(const Environment& environment) {
  return absl::StrCat(
      environment("XDG_DATA_HOME").value_or(absl::StrCat(Home(environment), "/.local/share")),
      "/ballast");
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 4096));
  std::string key(absl::StripAsciiWhitespace(text.substr(0, text.find('\n'))));
  if (key.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "KEY_FILE_EMPTY",
                     absl::StrCat(path, " holds no key; its first line must be the API key"),
                     {{"path", path}});
  }
  return key;
}

absl::StatusOr<Credentials> ResolveCredentials(const ConnectionFlags& flags,
                                               const Environment& environment, Role role) {
  BALLAST_ASSIGN_OR_RETURN(const config::v1::ClientProfile profile,
                           FindProfile(flags, environment));
  Credentials credentials;
  credentials.server_address =
      FirstOf(flags.server_address, environment("BALLAST_SERVER"), profile.server_address());
  if (credentials.server_address.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "SERVER_NOT_SET",
                     "no server is known; start one with `ballast dev`, or give --server, "
                     "BALLAST_SERVER or --profile");
  }
  credentials.tls_authority_file =
      FirstOf(flags.tls_authority_file, environment("BALLAST_TLS_AUTHORITY_FILE"),
              profile.tls_authority_file());
  BALLAST_ASSIGN_OR_RETURN(
      credentials.api_key,
      FindKey(flags, environment,
              role == Role::kOperator ? profile.operator_key() : profile.tenant_key()));
  if (credentials.api_key.empty()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "API_KEY_NOT_SET",
        absl::StrCat("no API key of ", role == Role::kOperator ? "an operator" : "a tenant",
                     " is known; give --api-key-file, BALLAST_API_KEY, or a profile "
                     "that has one"));
  }
  credentials.tenant = FirstOf(flags.tenant, environment("BALLAST_TENANT"), profile.tenant());
  if (credentials.tenant.empty() && role == Role::kTenant) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TENANT_NOT_SET",
                     "no tenant is known; give --tenant or BALLAST_TENANT, or a profile that has "
                     "one");
  }
  return credentials;
}

absl::Status WriteProfile(const std::string& path, const config::v1::ClientProfile& profile) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  out << YAML::Key << "server_address" << YAML::Value << profile.server_address();
  out << YAML::Key << "tenant" << YAML::Value << profile.tenant();
  out << YAML::Key << "tenant_key" << YAML::Value << profile.tenant_key();
  out << YAML::Key << "operator_key" << YAML::Value << profile.operator_key();
  if (!profile.tls_authority_file().empty()) {
    out << YAML::Key << "tls_authority_file" << YAML::Value << profile.tls_authority_file();
  }
  out << YAML::EndMap;
  return WriteFileAtomically(
      path,
      absl::StrCat("# How `ballast` reaches its server. Holds keys: keep it to yourself.\n",
                   out.c_str(), "\n"),
      0600);
}

}  // namespace ballast::cli
