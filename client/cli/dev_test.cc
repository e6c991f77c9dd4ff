// SPDX-License-Identifier: Apache-2.0
// The folder of `ballast dev` and the programs it runs.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/child_process.h"
#include "client/cli/dev_layout.h"
#include "client/cli/profile.h"
#include "common/base/config_file.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/signature.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::cli {
namespace {

namespace fs = std::filesystem;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;

class DevTest : public ::testing::Test {
 protected:
  DevTest() : folder_(fs::path(::testing::TempDir()) / RandomHex(64)), paths_(folder_.string()) {}
  ~DevTest() override { fs::remove_all(folder_); }

  static unsigned Mode(const std::string& path) {
    struct stat info {};
    return stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0;
  }

  const fs::path folder_;
  const DevPaths paths_;
};

TEST_F(DevTest, KeysAreMadeOnceAndForTheOwner) {
  ASSERT_OK(MakeKeys(paths_));
  ASSERT_OK_AND_ASSIGN(const std::string tenant, ReadKeyFile(paths_.tenant_key));
  ASSERT_OK_AND_ASSIGN(const std::string vault, ReadKeyFile(paths_.vault_key));
  EXPECT_EQ(vault.size(), 64u);
  for (const auto& path :
       {paths_.tenant_key, paths_.operator_key, paths_.worker_key, paths_.vault_key,
        paths_.certificate_key, paths_.certificate_public_key}) {
    EXPECT_EQ(Mode(path), 0600u) << path;
  }
  EXPECT_EQ(Mode(paths_.keys), 0700u);
  ASSERT_OK(MakeKeys(paths_));
  EXPECT_THAT(ReadKeyFile(paths_.tenant_key), testing::IsOkAndHolds(tenant));
}

TEST_F(DevTest, TheCertificateKeyStaysAndItsPublicHalfLiesBesideIt) {
  ASSERT_OK(MakeKeys(paths_));
  ASSERT_OK_AND_ASSIGN(const std::string pem, ReadFile(paths_.certificate_key));
  ASSERT_OK_AND_ASSIGN(const PrivateKey key, PrivateKey::FromPem(pem));
  fs::remove(paths_.certificate_public_key);
  ASSERT_OK(MakeKeys(paths_));
  EXPECT_THAT(ReadFile(paths_.certificate_key), testing::IsOkAndHolds(pem));
  ASSERT_OK_AND_ASSIGN(const PublicKey public_key,
                       PublicKey::FromFile(paths_.certificate_public_key));
  EXPECT_EQ(public_key.KeyId(), key.public_key().KeyId());
  ASSERT_OK(WriteServerConfig(paths_, {}));
  config::v1::ServerConfig config;
  ASSERT_OK(LoadConfigFile(paths_.server_config, &config));
  EXPECT_EQ(config.certificate_key_file(), paths_.certificate_key);
  ASSERT_OK(WriteFileAtomically(paths_.certificate_key, "broken", 0600));
  EXPECT_THAT(MakeKeys(paths_),
              StatusIs(absl::StatusCode::kInvalidArgument, "PRIVATE_KEY_INVALID"));
}

TEST_F(DevTest, AVaultKeyIsNeverReplacedUnderStoredVectors) {
  ASSERT_OK(MakeKeys(paths_));
  fs::remove(paths_.vault_key);
  EXPECT_OK(MakeKeys(paths_));  // nothing is stored yet
  fs::create_directories(paths_.server_data);
  fs::remove(paths_.vault_key);
  EXPECT_THAT(MakeKeys(paths_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "VAULT_KEY_MISSING"));
  EXPECT_FALSE(FileExists(paths_.vault_key));
}

TEST_F(DevTest, TheServersConfigurationHoldsDigestsAndKeepsEdits) {
  ASSERT_OK(MakeKeys(paths_));
  DevOptions options;
  options.port = 1234;
  ASSERT_OK(WriteServerConfig(paths_, options));
  config::v1::ServerConfig config;
  ASSERT_OK(LoadConfigFile(paths_.server_config, &config));
  EXPECT_EQ(config.listen_address(), "127.0.0.1:1234");
  EXPECT_EQ(config.metrics_address(), "off");
  ASSERT_EQ(config.api_keys_size(), 3);
  ASSERT_OK_AND_ASSIGN(const std::string tenant, ReadKeyFile(paths_.tenant_key));
  EXPECT_EQ(config.api_keys(0).digest(), DigestOf(tenant));
  EXPECT_EQ(config.api_keys(0).tenant(), "dev");
  ASSERT_OK_AND_ASSIGN(std::string text, ReadFile(paths_.server_config));
  EXPECT_EQ(text.find(tenant), std::string::npos);

  // A setting and a key of another tenant, added by hand.
  absl::StrAppend(&text, "lease_seconds: 7\n");
  const size_t at = text.find("api_keys:\n") + 10;
  text.insert(at, absl::StrCat("  - digest: ", DigestOf("other"),
                               "\n    role: TENANT\n    tenant: other\n    label: other\n"));
  ASSERT_OK(WriteFileAtomically(paths_.server_config, text));
  options.port = 4321;
  options.metrics_port = 4322;
  ASSERT_OK(WriteServerConfig(paths_, options));
  config.Clear();
  ASSERT_OK(LoadConfigFile(paths_.server_config, &config));
  EXPECT_EQ(config.listen_address(), "127.0.0.1:4321");
  EXPECT_EQ(config.metrics_address(), "127.0.0.1:4322");
  EXPECT_EQ(config.lease_seconds(), 7);
  ASSERT_EQ(config.api_keys_size(), 4);
  EXPECT_EQ(config.api_keys(3).tenant(), "other");
}

TEST_F(DevTest, BrokenEditsAreNamed) {
  ASSERT_OK(MakeKeys(paths_));
  ASSERT_OK(WriteFileAtomically(paths_.server_config, "a: [\n"));
  EXPECT_THAT(WriteServerConfig(paths_, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
  ASSERT_OK(WriteFileAtomically(paths_.server_config, "- a\n"));
  EXPECT_THAT(WriteServerConfig(paths_, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID"));
}

TEST_F(DevTest, WorkerAndProfileFollowTheServersAddress) {
  ASSERT_OK(MakeKeys(paths_));
  DevOptions options;
  options.threads = 1;
  ASSERT_OK(WriteWorkerConfig(paths_, options, "127.0.0.1:55"));
  config::v1::WorkerConfig worker;
  ASSERT_OK(LoadConfigFile(paths_.worker_config, &worker));
  EXPECT_EQ(worker.server_address(), "127.0.0.1:55");
  EXPECT_EQ(worker.vault_key_file(), paths_.vault_key);
  EXPECT_EQ(worker.threads(), 1);
  ASSERT_OK(WriteDevProfile(paths_, options, "127.0.0.1:55"));
  config::v1::ClientProfile profile;
  ASSERT_OK(LoadConfigFile(paths_.profile, &profile));
  EXPECT_EQ(profile.server_address(), "127.0.0.1:55");
  EXPECT_FALSE(profile.operator_key().empty());
}

TEST_F(DevTest, ThreadsAndDeviceOfOneStartAreNotThoseOfTheNext) {
  ASSERT_OK(MakeKeys(paths_));
  ASSERT_OK(WriteFileAtomically(paths_.worker_config, "checkpoint_steps: 7\n"));
  DevOptions options;
  options.threads = 1;
  options.device = "cpu";
  ASSERT_OK(WriteWorkerConfig(paths_, options, "127.0.0.1:55"));
  ASSERT_OK(WriteWorkerConfig(paths_, {}, "127.0.0.1:55"));
  config::v1::WorkerConfig worker;
  ASSERT_OK(LoadConfigFile(paths_.worker_config, &worker));
  EXPECT_EQ(worker.threads(), 0);
  EXPECT_EQ(worker.device(), "");
  EXPECT_EQ(worker.checkpoint_steps(), 7);
}

TEST_F(DevTest, UnprotectedModelsAreAllowedForOneStart) {
  ASSERT_OK(MakeKeys(paths_));
  for (const bool allow : {true, false}) {
    DevOptions options;
    options.allow_unprotected = allow;
    ASSERT_OK(WriteServerConfig(paths_, options));
    ASSERT_OK(WriteWorkerConfig(paths_, options, "127.0.0.1:55"));
    config::v1::ServerConfig server;
    ASSERT_OK(LoadConfigFile(paths_.server_config, &server));
    EXPECT_EQ(server.allow_unprotected_base_models(), allow);
    config::v1::WorkerConfig worker;
    ASSERT_OK(LoadConfigFile(paths_.worker_config, &worker));
    EXPECT_EQ(worker.allow_unprotected_base_models(), allow);
  }
}

TEST_F(DevTest, OnlyOneUsesAFolder) {
  fs::create_directories(folder_);
  {
    ASSERT_OK_AND_ASSIGN(const DevLock first, DevLock::Acquire(paths_.lock));
    const auto second = DevLock::Acquire(paths_.lock);
    EXPECT_THAT(second, StatusIs(absl::StatusCode::kFailedPrecondition, "ALREADY_RUNNING"));
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(absl::StrCat(getpid())));
  }
  EXPECT_OK(DevLock::Acquire(paths_.lock));
}

TEST_F(DevTest, APortInUseIsNamed) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const uint16_t port = ntohs(address.sin_port);
  EXPECT_THAT(CheckPortIsFree(port, "--port"),
              StatusIs(absl::StatusCode::kFailedPrecondition, "PORT_IN_USE"));
  close(fd);
  EXPECT_OK(CheckPortIsFree(port, "--port"));
  EXPECT_OK(CheckPortIsFree(0, "--port"));
}

class ChildProcessTest : public DevTest {
 protected:
  ChildProcessTest() { fs::create_directories(folder_); }
  absl::StatusOr<ChildProcess> Shell(const std::string& script) {
    return ChildProcess::Start("/bin/sh", {"-c", script}, (folder_ / "log").string());
  }
  static void WaitForEnd(ChildProcess& child) {
    while (child.Running()) absl::SleepFor(absl::Milliseconds(5));
  }
  void WaitForLog(const std::string& text) {
    while (!absl::StrContains(ReadFile((folder_ / "log").string()).value_or(""), text)) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
};

TEST_F(ChildProcessTest, SaysHowItEndedAndWhatItLogged) {
  ASSERT_OK(WriteFileAtomically((folder_ / "log").string(), "of an earlier start\n"));
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Shell("echo one; echo two >&2; echo three; exit 3"));
  WaitForEnd(child);
  EXPECT_EQ(child.Ending(), "exit code 3");
  EXPECT_EQ(child.LogTail(2), "two\nthree");
  EXPECT_EQ(child.LogTail(9), "one\ntwo\nthree");
}

TEST_F(ChildProcessTest, IsAskedFirstAndKilledLater) {
  ASSERT_OK_AND_ASSIGN(ChildProcess polite,
                       Shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"));
  WaitForLog("ready");
  polite.Stop(absl::Seconds(20));
  EXPECT_EQ(polite.Ending(), "exit code 0");
  polite.Stop(absl::Seconds(20));  // again is harmless

  ASSERT_OK_AND_ASSIGN(ChildProcess stubborn,
                       Shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done"));
  WaitForLog("deaf");
  stubborn.Stop(absl::Milliseconds(100));
  EXPECT_THAT(stubborn.Ending(), HasSubstr("signal 9"));
}

TEST_F(ChildProcessTest, IsNotStoppedTwiceAfterAMove) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Shell("sleep 60"));
  const pid_t pid = child.pid();
  {
    ChildProcess moved = std::move(child);
    EXPECT_TRUE(moved.Running());
  }
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(ChildProcessTest, AProgramThatIsNotThereIsAnError) {
  EXPECT_THAT(ChildProcess::Start((folder_ / "none").string(), {}, (folder_ / "log").string()),
              StatusIs(absl::StatusCode::kFailedPrecondition, "PROGRAM_NOT_STARTED"));
}

}  // namespace
}  // namespace ballast::cli
