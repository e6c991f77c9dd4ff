// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_job_store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/store/data_dir_lock.h"
#include "server/store/sqlite_schema.h"
#include "server/testing/full_disk.h"
#include "server/testing/job_store_suite.h"
#include "server/testing/temp_dir.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::FullDisk;
using ::ballast::server::testing::TempDir;
using ::ballast::testing::StatusIs;

// A store with a folder that lives as long.
class StoreInTempDir : public JobStore {
 public:
  StoreInTempDir() : store_(SqliteJobStore::Open(folder_.path() + "/test.db").value()) {}
  absl::Status Update(const Body& body) override { return store_->Update(body); }
  absl::Status Read(const Body& body) override { return store_->Read(body); }
  const std::string& owner() const override { return store_->owner(); }

 private:
  TempDir folder_;
  std::unique_ptr<SqliteJobStore> store_;
};

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Sqlite, JobStoreSuite,
                         ::testing::Values([] { return std::make_unique<StoreInTempDir>(); }));
}  // namespace testing

namespace {

absl::Status InsertJob(JobStore& store, const std::string& id, size_t bytes = 10) {
  return store.Update([&](Transaction& tx) {
    Row row;
    row.scope = "t";
    row.id = id;
    row.bytes = std::string(bytes, 'x');
    return tx.Insert(Kind::kJob, row).status();
  });
}

bool HasJob(JobStore& store, const std::string& id) {
  bool has = false;
  EXPECT_OK(store.Read([&](Transaction& tx) -> absl::Status {
    has = tx.Get(Kind::kJob, "t", id, Hold::kNone).value().has_value();
    return absl::OkStatus();
  }));
  return has;
}

TEST(SqliteJobStoreTest, ReadsRunBesideEachOther) {
  StoreInTempDir store;
  ASSERT_OK(InsertJob(store, "one"));
  absl::Notification read;
  std::thread other;
  ASSERT_OK(store.Read([&](Transaction&) {
    other = std::thread([&] {
      if (HasJob(store, "one")) read.Notify();
    });
    return read.WaitForNotificationWithTimeout(absl::Seconds(30))
               ? absl::OkStatus()
               : absl::DeadlineExceededError("one read waits for the other");
  }));
  other.join();
}

TEST(SqliteJobStoreTest, WhatWasCommittedSurvivesAKill) {
  TempDir folder;
  const std::string path = folder.path() + "/test.db";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto store = SqliteJobStore::Open(path).value();
    if (!InsertJob(*store, "kept").ok()) _exit(1);
    store
        ->Update([&](Transaction& tx) -> absl::Status {
          Row row;
          row.scope = "t";
          row.id = "half";
          if (!tx.Insert(Kind::kJob, row).ok()) _exit(1);
          kill(getpid(), SIGKILL);
          return absl::OkStatus();
        })
        .IgnoreError();
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(path));
  EXPECT_TRUE(HasJob(*store, "kept"));
  EXPECT_FALSE(HasJob(*store, "half"));
}

TEST(SqliteJobStoreTest, AFullDiskLosesNothingStored) {
  TempDir folder;
  ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(folder.path() + "/test.db"));
  ASSERT_OK(InsertJob(*store, "before"));
  {
    FullDisk full(256 << 10);
    EXPECT_THAT(InsertJob(*store, "large", 4 << 20),
                StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
    EXPECT_TRUE(HasJob(*store, "before"));
  }
  EXPECT_FALSE(HasJob(*store, "large"));
  ASSERT_OK(InsertJob(*store, "after"));
  EXPECT_TRUE(HasJob(*store, "after"));
}

TEST(SqliteJobStoreTest, AFullDiskFailsAllThatShareACommit) {
  TempDir folder;
  ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(folder.path() + "/test.db"));
  std::vector<std::thread> threads;
  std::vector<absl::Status> ends(8);
  {
    FullDisk full(256 << 10);
    for (size_t t = 0; t < ends.size(); ++t) {
      threads.emplace_back(
          [&, t] { ends[t] = InsertJob(*store, absl::StrCat("job-", t), t == 3 ? 4 << 20 : 10); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_THAT(ends[3], StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  for (size_t t = 0; t < ends.size(); ++t) {
    EXPECT_EQ(HasJob(*store, absl::StrCat("job-", t)), ends[t].ok()) << ends[t];
  }
  ASSERT_OK(InsertJob(*store, "after"));
}

TEST(SqliteJobStoreTest, RefusesANewerSchemaAndLeavesItAlone) {
  TempDir folder;
  const std::string path = folder.path() + "/test.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto connection, SqliteConnection::Open(path, false));
    ASSERT_OK(MigrateSchema(*connection));
    ASSERT_OK(connection->Execute(
        absl::StrCat("UPDATE schema_version SET version = ", SchemaVersion() + 1)));
  }
  EXPECT_THAT(SqliteJobStore::Open(path),
              StatusIs(absl::StatusCode::kFailedPrecondition, "SCHEMA_TOO_NEW"));
  EXPECT_THAT(SqliteJobStore::Open(path),
              StatusIs(absl::StatusCode::kFailedPrecondition, "SCHEMA_TOO_NEW"));
}

TEST(SqliteJobStoreTest, OpensAnExistingDatabaseWithoutChangingIt) {
  TempDir folder;
  const std::string path = folder.path() + "/test.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(path));
    ASSERT_OK(InsertJob(*store, "a"));
  }
  ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(path));
  EXPECT_TRUE(HasJob(*store, "a"));
}

TEST(SqliteJobStoreTest, BringsAnOlderDatabaseUpToDate) {
  TempDir folder;
  const std::string path = folder.path() + "/test.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(path));
    ASSERT_OK(InsertJob(*store, "a"));
  }
  {
    // As the first version left it.
    ASSERT_OK_AND_ASSIGN(const auto connection, SqliteConnection::Open(path, false));
    ASSERT_OK(
        connection->Execute("DROP TABLE tenants; DROP TABLE usage; DROP INDEX jobs_of_a_tenant;"
                            "DROP TABLE workers; DROP TABLE servers; DROP TABLE samples;"
                            "ALTER TABLE garbage DROP COLUMN holder;"
                            "UPDATE schema_version SET version = 1"));
  }
  ASSERT_OK_AND_ASSIGN(const auto store, SqliteJobStore::Open(path));
  EXPECT_TRUE(HasJob(*store, "a"));
  EXPECT_OK(store->Update([](Transaction& tx) -> absl::Status {
    Row row;
    row.id = "acme";
    return tx.Insert(Kind::kTenant, row).status();
  }));
}

TEST(SqliteJobStoreTest, SaysThatAFileIsNoDatabase) {
  TempDir folder;
  const std::string path = folder.path() + "/test.db";
  ASSERT_OK(WriteFileAtomically(path, std::string(4096, 'x')));
  EXPECT_THAT(SqliteJobStore::Open(path), StatusIs(absl::StatusCode::kDataLoss, "STORE_CORRUPT"));
}

TEST(SqliteJobStoreTest, IsSafeAgainstPowerCuts) {
  TempDir folder;
  ASSERT_OK_AND_ASSIGN(const auto connection,
                       SqliteConnection::Open(folder.path() + "/test.db", false));
  for (const auto& [pragma, wanted] :
       std::map<const char*, std::string>{{"PRAGMA journal_mode", "wal"},
                                          {"PRAGMA synchronous", "2"},
                                          {"PRAGMA foreign_keys", "1"}}) {
    ASSERT_OK_AND_ASSIGN(SqliteStatement* const statement, connection->Prepare(pragma));
    ASSERT_TRUE(statement->Step().value());
    EXPECT_EQ(statement->TextAt(0), wanted) << pragma;
    statement->Reset();
  }
}

TEST(DataDirLockTest, OneAtATime) {
  TempDir folder;
  const std::string path = folder.path() + "/data";
  {
    ASSERT_OK_AND_ASSIGN(const auto lock, DataDirLock::Acquire(path));
    EXPECT_THAT(DataDirLock::Acquire(path),
                StatusIs(absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE"));
  }
  EXPECT_OK(DataDirLock::Acquire(path));
}

}  // namespace
}  // namespace ballast::server
