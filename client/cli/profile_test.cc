// SPDX-License-Identifier: Apache-2.0
#include "client/cli/profile.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>

#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::cli {
namespace {

namespace fs = std::filesystem;
using ::ballast::testing::StatusIs;

class ProfileTest : public ::testing::Test {
 protected:
  ProfileTest() : home_(fs::path(::testing::TempDir()) / RandomHex(64)) {
    fs::create_directories(home_);
    variables_["HOME"] = home_.string();
  }
  ~ProfileTest() override { fs::remove_all(home_); }

  Environment environment() {
    return [this](const std::string& name) -> std::optional<std::string> {
      const auto found = variables_.find(name);
      if (found == variables_.end()) return std::nullopt;
      return found->second;
    };
  }
  std::string Put(const std::string& path, const std::string& address) {
    config::v1::ClientProfile profile;
    profile.set_server_address(address);
    profile.set_tenant("acme");
    profile.set_tenant_key("tenant-key");
    profile.set_operator_key("operator-key");
    const fs::path full = home_ / path;
    fs::create_directories(full.parent_path());
    EXPECT_OK(WriteProfile(full.string(), profile));
    return full.string();
  }
  absl::StatusOr<Credentials> Resolve(Role role = Role::kTenant) {
    return ResolveCredentials(flags_, environment(), role);
  }

  const fs::path home_;
  std::map<std::string, std::string> variables_;
  ConnectionFlags flags_;
};

TEST_F(ProfileTest, NothingKnownSaysWhatToDo) {
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kInvalidArgument, "SERVER_NOT_SET"));
  flags_.server_address = "127.0.0.1:1";
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kInvalidArgument, "API_KEY_NOT_SET"));
  variables_["BALLAST_API_KEY"] = "k";
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kInvalidArgument, "TENANT_NOT_SET"));
  EXPECT_OK(Resolve(Role::kOperator));  // operators belong to no tenant
  flags_.tenant = "acme";
  EXPECT_OK(Resolve());
}

TEST_F(ProfileTest, TheRoleChoosesTheKey) {
  flags_.profile = Put("p.yaml", "127.0.0.1:1");
  ASSERT_OK_AND_ASSIGN(const Credentials tenant, Resolve());
  EXPECT_EQ(tenant.api_key, "tenant-key");
  EXPECT_EQ(tenant.tenant, "acme");
  ASSERT_OK_AND_ASSIGN(const Credentials op, Resolve(Role::kOperator));
  EXPECT_EQ(op.api_key, "operator-key");
}

TEST_F(ProfileTest, FlagsBeatVariablesBeatTheProfile) {
  flags_.profile = Put("p.yaml", "127.0.0.1:1");
  variables_["BALLAST_SERVER"] = "127.0.0.1:2";
  variables_["BALLAST_API_KEY"] = "from-variable";
  variables_["BALLAST_TENANT"] = "from-variable";
  ASSERT_OK_AND_ASSIGN(Credentials credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:2");
  EXPECT_EQ(credentials.api_key, "from-variable");
  EXPECT_EQ(credentials.tenant, "from-variable");
  flags_.server_address = "127.0.0.1:3";
  flags_.tenant = "from-flag";
  flags_.api_key_file = (home_ / "key").string();
  ASSERT_OK(WriteFileAtomically(flags_.api_key_file, "  from-file \nmore\n"));
  ASSERT_OK_AND_ASSIGN(credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:3");
  EXPECT_EQ(credentials.api_key, "from-file");
  EXPECT_EQ(credentials.tenant, "from-flag");
}

TEST_F(ProfileTest, ProfilesAreFoundInOrder) {
  Put(".local/share/ballast/client.yaml", "127.0.0.1:4");
  ASSERT_OK_AND_ASSIGN(Credentials credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:4");
  Put(".config/ballast/profile.yaml", "127.0.0.1:3");
  ASSERT_OK_AND_ASSIGN(credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:3");
  variables_["BALLAST_PROFILE"] = Put("b.yaml", "127.0.0.1:2");
  ASSERT_OK_AND_ASSIGN(credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:2");
  flags_.profile = Put("a.yaml", "127.0.0.1:1");
  ASSERT_OK_AND_ASSIGN(credentials, Resolve());
  EXPECT_EQ(credentials.server_address, "127.0.0.1:1");
}

TEST_F(ProfileTest, ANamedProfileMustExistAndBeRight) {
  flags_.profile = (home_ / "none.yaml").string();
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
  ASSERT_OK(WriteFileAtomically(flags_.profile, "sever_address: x\n"));
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
}

TEST_F(ProfileTest, EmptyKeyFilesAreRefused) {
  flags_.server_address = "127.0.0.1:1";
  flags_.api_key_file = (home_ / "key").string();
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
  ASSERT_OK(WriteFileAtomically(flags_.api_key_file, "\n"));
  EXPECT_THAT(Resolve(), StatusIs(absl::StatusCode::kInvalidArgument, "KEY_FILE_EMPTY"));
}

TEST_F(ProfileTest, AProfileIsForItsOwnerOnly) {
  const std::string path = Put("p.yaml", "127.0.0.1:1");
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

}  // namespace
}  // namespace ballast::cli
