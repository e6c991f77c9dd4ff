// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ballast::testing::IsOkAndHolds;
using ballast::testing::StatusIs;

class FileTest : public ::testing::Test {
 protected:
  FileTest() : directory_(::testing::TempDir() + "/file_test-" + RandomHex(64)) {
    std::filesystem::create_directories(directory_);
  }
  ~FileTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string directory_;
};

TEST_F(FileTest, WriteThenRead) {
  ASSERT_OK(WriteFileAtomically(Path("a"), "one"));
  ASSERT_OK(WriteFileAtomically(Path("a"), "two"));
  EXPECT_THAT(ReadFile(Path("a")), IsOkAndHolds("two"));
  EXPECT_THAT(FileSize(Path("a")), IsOkAndHolds(3));
}

TEST_F(FileTest, FailedWriteKeepsTheOldFileAndLeavesNothing) {
  ASSERT_OK(WriteFileAtomically(Path("a"), "old"));
  // A write past RLIMIT_FSIZE fails as a full disk does, without filling one.
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  rlimit small = old_limit;
  small.rlim_cur = 4096;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = WriteFileAtomically(Path("a"), std::string(1 << 20, 'x'));
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_THAT(ReadFile(Path("a")), IsOkAndHolds("old"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(FileTest, FailuresSayWhichFileAndWhy) {
  const auto missing = ReadFile(Path("none"));
  EXPECT_THAT(missing, StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
  EXPECT_NE(missing.status().message().find(Path("none")), absl::string_view::npos);
  ASSERT_OK(WriteFileAtomically(Path("big"), std::string(100, 'x')));
  EXPECT_THAT(ReadFile(Path("big"), 99),
              StatusIs(absl::StatusCode::kInvalidArgument, "FILE_TOO_LARGE"));
  // It says 0 bytes, and has more.
  EXPECT_THAT(ReadFile("/dev/zero", 99),
              StatusIs(absl::StatusCode::kInvalidArgument, "FILE_TOO_LARGE"));
  EXPECT_FALSE(MakeDirectories(Path("big/sub")).ok());
  EXPECT_FALSE(MappedFile::Open(directory_).ok());
}

TEST_F(FileTest, Map) {
  ASSERT_OK(WriteFileAtomically(Path("a"), "mapped"));
  ASSERT_OK_AND_ASSIGN(MappedFile file, MappedFile::Open(Path("a")));
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes(), "mapped");
  ASSERT_OK(WriteFileAtomically(Path("empty"), ""));
  ASSERT_OK_AND_ASSIGN(MappedFile empty, MappedFile::Open(Path("empty")));
  EXPECT_TRUE(empty.bytes().empty());
}

}  // namespace
}  // namespace ballast
