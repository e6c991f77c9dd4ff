// SPDX-License-Identifier: Apache-2.0
#include "server/auth/api_key_authenticator.h"

#include <string>

#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::server {
namespace {

using ::ballast::config::v1::ApiKey;
using ::ballast::config::v1::ServerConfig;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

ApiKey Key(const std::string& key, ApiKey::Role role, const std::string& tenant) {
  ApiKey entry;
  entry.set_digest(DigestOf(key));
  entry.set_role(role);
  entry.set_tenant(tenant);
  return entry;
}

TEST(ApiKeyAuthenticatorTest, TellsWhoHoldsAKey) {
  ServerConfig config;
  *config.add_api_keys() = Key("one", ApiKey::TENANT, "acme");
  *config.add_api_keys() = Key("two", ApiKey::OPERATOR, "");
  *config.add_api_keys() = Key("three", ApiKey::WORKER, "");
  ASSERT_OK_AND_ASSIGN(const auto authenticator, ApiKeyAuthenticator::Create(config.api_keys()));

  ASSERT_OK_AND_ASSIGN(const Principal tenant, authenticator->Authenticate("Bearer one"));
  EXPECT_EQ(tenant.role, Role::kTenant);
  EXPECT_EQ(tenant.tenant, "acme");
  ASSERT_OK_AND_ASSIGN(const Principal op, authenticator->Authenticate("Bearer two"));
  EXPECT_EQ(op.role, Role::kOperator);
  ASSERT_OK_AND_ASSIGN(const Principal worker, authenticator->Authenticate("Bearer three"));
  EXPECT_EQ(worker.role, Role::kWorker);
}

TEST(ApiKeyAuthenticatorTest, RefusesWithoutQuotingTheKey) {
  ServerConfig config;
  *config.add_api_keys() = Key("one", ApiKey::TENANT, "acme");
  ASSERT_OK_AND_ASSIGN(const auto authenticator, ApiKeyAuthenticator::Create(config.api_keys()));
  for (const char* missing : {"", "one", "Basic one", "bearer one"}) {
    EXPECT_THAT(authenticator->Authenticate(missing),
                StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_MISSING"));
  }
  for (const char* wrong : {"Bearer ", "Bearer one ", "Bearer secret-key-of-somebody"}) {
    const auto result = authenticator->Authenticate(wrong);
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_INVALID"));
    EXPECT_THAT(result.status().ToString(), Not(HasSubstr("secret-key-of-somebody")));
  }
}

TEST(ApiKeyAuthenticatorTest, RefusesBadEntriesNamingThem) {
  const auto reason_of = [](const ApiKey& bad) {
    ServerConfig config;
    *config.add_api_keys() = Key("one", ApiKey::TENANT, "acme");
    *config.add_api_keys() = bad;
    const auto result = ApiKeyAuthenticator::Create(config.api_keys());
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("api_keys[1]"));
    return std::string(result.status().message());
  };
  ApiKey plain = Key("two", ApiKey::TENANT, "acme");
  plain.set_digest("two");
  EXPECT_THAT(reason_of(plain), HasSubstr("digest"));
  EXPECT_THAT(reason_of(Key("one", ApiKey::OPERATOR, "")), HasSubstr("twice"));
  EXPECT_THAT(reason_of(Key("two", ApiKey::ROLE_UNSPECIFIED, "")), HasSubstr("role"));
  EXPECT_THAT(reason_of(Key("two", ApiKey::TENANT, "")), HasSubstr("tenant"));
  EXPECT_THAT(reason_of(Key("two", ApiKey::TENANT, "../x")), HasSubstr("tenant"));
  EXPECT_THAT(reason_of(Key("two", ApiKey::WORKER, "acme")), HasSubstr("TENANT keys only"));
}

}  // namespace
}  // namespace ballast::server
