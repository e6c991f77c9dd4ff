// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_AUTH_API_KEY_AUTHENTICATOR_H_
#define BALLAST_SERVER_AUTH_API_KEY_AUTHENTICATOR_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/config/v1/config.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "server/core/authenticator.h"

namespace ballast::server {

// Knows callers by API keys, of which it has the SHA-256 only. A key is compared with every
// configured digest in constant time, so that neither the time taken nor an error tells which keys
// are close.
class ApiKeyAuthenticator : public Authenticator {
 public:
  // INVALID_ARGUMENT (CONFIG_INVALID) naming the entry: a digest that is none or is given twice, a
  // missing role, or a tenant that is missing, malformed, or given for another role.
  static absl::StatusOr<std::unique_ptr<ApiKeyAuthenticator>> Create(
      const google::protobuf::RepeatedPtrField<config::v1::ApiKey>& keys);

  absl::StatusOr<Principal> Authenticate(std::string_view authorization) const override;

 private:
  struct Entry {
    std::string digest;
    Principal principal;
  };
  explicit ApiKeyAuthenticator(std::vector<Entry> entries) : entries_(std::move(entries)) {}

  const std::vector<Entry> entries_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_AUTH_API_KEY_AUTHENTICATOR_H_
