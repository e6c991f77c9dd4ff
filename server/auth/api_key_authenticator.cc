// SPDX-License-Identifier: Apache-2.0
#include "server/auth/api_key_authenticator.h"

#include <openssl/crypto.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

constexpr std::string_view kScheme = "Bearer ";

absl::Status Invalid(int index, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                   absl::StrCat("api_keys[", index, "]: ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ApiKeyAuthenticator>> ApiKeyAuthenticator::Create(
    const google::protobuf::RepeatedPtrField<config::v1::ApiKey>& keys) {
  std::vector<Entry> entries;
  std::set<std::string> seen;
  for (int i = 0; i < keys.size(); ++i) {
    const config::v1::ApiKey& key = keys[i];
    if (!IsDigest(key.digest())) {
      return Invalid(
          i, "digest must be \"sha256:\" and the 64 lower-case hex digits of the key's SHA-256");
    }
    if (!seen.insert(key.digest()).second)
      return Invalid(i, "this digest is given twice; remove one");
    Entry entry;
    entry.digest = key.digest();
    entry.principal.label = key.label();
    switch (key.role()) {
      case config::v1::ApiKey::TENANT:
        entry.principal.role = Role::kTenant;
        break;
      case config::v1::ApiKey::OPERATOR:
        entry.principal.role = Role::kOperator;
        break;
      case config::v1::ApiKey::WORKER:
        entry.principal.role = Role::kWorker;
        break;
      default:
        return Invalid(i, "role must be TENANT, OPERATOR or WORKER");
    }
    if (entry.principal.role == Role::kTenant) {
      if (!IsResourceId(key.tenant())) {
        return Invalid(
            i, "a TENANT key needs tenant: 1 to 63 lower-case letters, digits, \"-\" and \".\"");
      }
      entry.principal.tenant = key.tenant();
    } else if (!key.tenant().empty()) {
      return Invalid(i, "tenant is for TENANT keys only; remove it or change the role");
    }
    entries.push_back(std::move(entry));
  }
  return std::unique_ptr<ApiKeyAuthenticator>(new ApiKeyAuthenticator(std::move(entries)));
}

absl::StatusOr<Principal> ApiKeyAuthenticator::Authenticate(std::string_view authorization) const {
  if (authorization.substr(0, kScheme.size()) != kScheme) {
    return MakeError(absl::StatusCode::kUnauthenticated, "API_KEY_MISSING",
                     "this call needs an API key in the metadata \"authorization: Bearer <key>\"");
  }
  const std::string digest = DigestOf(authorization.substr(kScheme.size()));
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    // No early exit: the time does not depend on which entry matches.
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr) {
    return MakeError(absl::StatusCode::kUnauthenticated, "API_KEY_INVALID",
                     "the API key is not known to this server; check that it is the right one");
  }
  return found->principal;
}

}  // namespace ballast::server
