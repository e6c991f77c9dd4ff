// SPDX-License-Identifier: Apache-2.0
#include "common/base/config_file.h"

#include <string>

#include "ballast/config/v1/config.pb.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ::ballast::config::v1::ApiKey;
using ::ballast::config::v1::ServerConfig;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(ConfigFileTest, ReadsEveryKindOfField) {
  ServerConfig config;
  ASSERT_OK(
      ParseConfig("# a comment\n"
                  "data_dir: /srv/ballast\n"
                  "lease_seconds: 45\n"
                  "max_dataset_bytes: 5000000000\n"
                  "log_level: null\n"
                  "api_keys:\n"
                  "  - digest: \"sha256:00\"\n"
                  "    role: OPERATOR\n"
                  "  - {digest: \"sha256:01\", role: TENANT, tenant: 42}\n"
                  "object_store:\n"
                  "  url: s3://bucket\n"
                  "  options: {endpoint: \"https://s3.example.com\", allow_http: true}\n",
                  "server.yaml", &config));
  EXPECT_EQ(config.data_dir(), "/srv/ballast");
  EXPECT_EQ(config.lease_seconds(), 45);
  EXPECT_EQ(config.max_dataset_bytes(), 5'000'000'000);
  EXPECT_EQ(config.log_level(), "");
  ASSERT_EQ(config.api_keys_size(), 2);
  EXPECT_EQ(config.api_keys(0).role(), ApiKey::OPERATOR);
  EXPECT_EQ(config.api_keys(1).tenant(), "42");
  EXPECT_THAT(
      config.object_store().options(),
      UnorderedElementsAre(Pair("endpoint", "https://s3.example.com"), Pair("allow_http", "true")));
}

struct BadCase {
  const char* name;
  const char* yaml;
  const char* message;
};

class ConfigFileBadTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(ConfigFileBadTest, NamesFileLineAndKey) {
  ServerConfig config;
  const absl::Status status = ParseConfig(GetParam().yaml, "server.yaml", &config);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigFileBadTest,
    ::testing::Values(
        BadCase{"UnknownKey", "data_dir: a\nlisten: b\n",
                "server.yaml:2: unknown key listen; known are"},
        BadCase{"UnknownNestedKey", "api_keys:\n  - rol: TENANT\n",
                "server.yaml:2: unknown key api_keys[0].rol"},
        BadCase{"RepeatedKey", "data_dir: a\ndata_dir: b\n",
                "server.yaml:2: data_dir is given twice"},
        BadCase{"NoNumber", "lease_seconds: soon\n", "lease_seconds must be a whole number"},
        BadCase{"NumberTooLarge", "lease_seconds: 3000000000\n", "lease_seconds must be a whole"},
        BadCase{"UnknownEnum", "api_keys: [{role: KING}]\n",
                "api_keys[0].role must be one of TENANT, OPERATOR, WORKER"},
        BadCase{"ListWanted", "api_keys: x\n", "api_keys must be a list"},
        BadCase{"ScalarWanted", "data_dir: [a]\n", "data_dir must be a single value"},
        BadCase{"MappingWanted", "- a\n", "the configuration must be a mapping"},
        BadCase{"NoYaml", "data_dir: [a\n", "not valid YAML"}),
    [](const auto& info) { return info.param.name; });

TEST(ConfigFileTest, ReadsAFileAndReportsAMissingOne) {
  const std::string path = ::testing::TempDir() + "/config_file_test.yaml";
  ASSERT_OK(WriteFileAtomically(path, "data_dir: x\n"));
  ServerConfig config;
  ASSERT_OK(LoadConfigFile(path, &config));
  EXPECT_EQ(config.data_dir(), "x");
  EXPECT_THAT(LoadConfigFile(path + ".none", &config),
              StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
}

}  // namespace
}  // namespace ballast
