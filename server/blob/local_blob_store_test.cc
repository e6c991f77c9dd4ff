// SPDX-License-Identifier: Apache-2.0
#include "server/blob/local_blob_store.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/blob_store_suite.h"
#include "server/testing/full_disk.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::BlobStoreSuite;
using ::ballast::server::testing::FullDisk;
using ::ballast::server::testing::TempDir;
using ::ballast::testing::StatusIs;

std::unique_ptr<BlobStore> MakeLocal(const std::string& folder) {
  return std::move(LocalBlobStore::OpenRoot(folder + "/store")).value();
}

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Local, BlobStoreSuite, ::testing::Values(MakeLocal));
}  // namespace testing

namespace {

int CountFiles(const std::string& folder) {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) ++files;
  }
  return files;
}

TEST(LocalBlobStoreTest, AFullDiskLosesNothingStored) {
  TempDir folder;
  const auto store = MakeLocal(folder.path());
  ASSERT_OK_AND_ASSIGN(const auto appender, store->OpenAppend("upload"));
  ASSERT_OK(appender->Append("kept"));
  {
    FullDisk full(1000);
    ASSERT_OK_AND_ASSIGN(const auto writer, store->Create("large"));
    EXPECT_THAT(writer->Append(std::string(5000, 'x')),
                StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
    EXPECT_THAT(appender->Append(std::string(5000, 'x')),
                StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  }
  EXPECT_EQ(appender->size_bytes(), 4);
  // Part of the bytes had been written; they are gone again, and the upload goes on where it was.
  EXPECT_EQ(store->Size("upload").value(), 4);
  ASSERT_OK(appender->Append(" more"));
  EXPECT_EQ(store->Open("upload").value()->Read(0, 100).value(), "kept more");
  EXPECT_EQ(appender->Digest().value(), DigestOf("kept more"));
  EXPECT_THAT(store->Open("large"), StatusIs(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND"));
  EXPECT_EQ(CountFiles(folder.path()), 1);
}

TEST(LocalBlobStoreTest, AKilledProcessLeavesSyncedBytesAndNoHalfBlob) {
  TempDir folder;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto store = MakeLocal(folder.path());
    auto appender = store->OpenAppend("upload").value();
    if (!appender->Append("durable").ok() || !appender->Sync().ok()) _exit(1);
    auto writer = store->Create("half").value();
    if (!writer->Append("never committed").ok()) _exit(1);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(CountFiles(folder.path()), 2);
  const auto store = MakeLocal(folder.path());
  EXPECT_EQ(CountFiles(folder.path()), 1);
  EXPECT_EQ(store->OpenAppend("upload").value()->size_bytes(), 7);
  EXPECT_THAT(store->Open("half"), StatusIs(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND"));
}

TEST(LocalBlobStoreTest, FilesArePrivate) {
  TempDir folder;
  const auto store = MakeLocal(folder.path());
  ASSERT_OK(store->OpenAppend("a/b").value()->Append("x"));
  struct stat info;
  ASSERT_EQ(stat((folder.path() + "/store/blobs/a/b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(stat((folder.path() + "/store/blobs/a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

}  // namespace
}  // namespace ballast::server
