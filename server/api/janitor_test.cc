// SPDX-License-Identifier: Apache-2.0
#include "server/api/janitor.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/blob/local_blob_store.h"
#include "server/testing/fake_job_store.h"
#include "server/testing/forwarding_blob_store.h"
#include "server/testing/temp_dir.h"

namespace ballast::server::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StubbornBlobs : public ForwardingBlobStore {
 public:
  using ForwardingBlobStore::ForwardingBlobStore;
  absl::Status DeletePrefix(const std::string& prefix) override {
    if (stubborn.count(prefix) != 0) {
      ++refused;
      return MakeError(absl::StatusCode::kUnavailable, reason, "no");
    }
    return ForwardingBlobStore::DeletePrefix(prefix);
  }
  std::set<std::string> stubborn;
  std::string reason = "FILE_IO";
  int refused = 0;
};

// A store whose reads fail when told.
class UnreadableStore : public FakeJobStore {
 public:
  absl::Status Read(const Body& body) override {
    ++reads;
    return readable ? FakeJobStore::Read(body)
                    : MakeError(absl::StatusCode::kUnavailable, "STORE_IO", "no");
  }
  bool readable = true;
  int reads = 0;
};

class JanitorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(local_, LocalBlobStore::OpenRoot(folder_.path()));
    blobs_ = std::make_unique<StubbornBlobs>(*local_);
    janitor_ = std::make_unique<Janitor>(store_, *blobs_, unnamed_);
  }

  void AddGarbage(const std::string& prefix) {
    const auto writer = blobs_->Create(prefix + "/rows");
    ASSERT_OK((*writer)->Append("x"));
    ASSERT_OK((*writer)->Commit(""));
    ASSERT_OK(store_.Update([&](Transaction& tx) { return tx.AddGarbage(prefix); }));
  }

  std::vector<std::string> Garbage() {
    std::vector<std::string> garbage;
    EXPECT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListGarbage("", 1000));
      for (const GarbageRow& row : rows) garbage.push_back(row.blob_prefix);
      return absl::OkStatus();
    }));
    return garbage;
  }

  bool IsStored(const std::string& prefix) { return blobs_->Size(prefix + "/rows").ok(); }

  TempDir folder_;
  UnreadableStore store_;
  UnnamedBlobs unnamed_;
  std::unique_ptr<LocalBlobStore> local_;
  std::unique_ptr<StubbornBlobs> blobs_;
  std::unique_ptr<Janitor> janitor_;
};

TEST_F(JanitorTest, AnObjectStoreThatIsAwayIsNotAskedForEverything) {
  blobs_->reason = "OBJECT_STORE";
  for (int i = 0; i < 5; ++i) {
    AddGarbage(absl::StrCat("a", i));
    blobs_->stubborn.insert(absl::StrCat("a", i));
  }
  AddGarbage("b");
  janitor_->Clean();
  EXPECT_EQ(blobs_->refused, 3);
  EXPECT_TRUE(IsStored("b"));
  // The next round goes on behind these: some that are locked keep nothing else.
  janitor_->Clean();
  EXPECT_EQ(blobs_->refused, 5);
  EXPECT_FALSE(IsStored("b"));
  blobs_->stubborn.clear();
  janitor_->Clean();
  EXPECT_THAT(Garbage(), IsEmpty());
}

TEST_F(JanitorTest, WhatCannotBeDeletedKeepsNothingElse) {
  // More than are looked at together, and before all others.
  for (int i = 100; i < 150; ++i) {
    AddGarbage(absl::StrCat("a", i));
    blobs_->stubborn.insert(absl::StrCat("a", i));
  }
  for (int i = 100; i < 150; ++i) AddGarbage(absl::StrCat("b", i));
  janitor_->Clean();
  EXPECT_EQ(Garbage().size(), 50);
  for (int i = 100; i < 150; ++i) {
    EXPECT_TRUE(IsStored(absl::StrCat("a", i)));
    EXPECT_FALSE(IsStored(absl::StrCat("b", i)));
  }
  blobs_->stubborn.clear();
  janitor_->Clean();
  EXPECT_THAT(Garbage(), IsEmpty());
  EXPECT_FALSE(IsStored("a100"));
}

TEST_F(JanitorTest, AStoreThatCannotBeReadIsNotAsked) {
  AddGarbage("a");
  store_.readable = false;
  janitor_->Clean();
  EXPECT_EQ(store_.reads, 1);
  store_.readable = true;
  EXPECT_THAT(Garbage(), ElementsAre("a"));
  EXPECT_TRUE(IsStored("a"));
}

TEST_F(JanitorTest, WhatItsSweepFindsGoesInTheSameRound) {
  int sweeps = 0;
  Janitor janitor(
      store_, *blobs_, unnamed_, [] { return true; },
      [&] {
        ++sweeps;
        AddGarbage("found");
      });
  janitor.Clean();
  EXPECT_EQ(sweeps, 1);
  EXPECT_FALSE(IsStored("found"));
  EXPECT_THAT(Garbage(), IsEmpty());
}

TEST_F(JanitorTest, WhatARunningCallHoldsStays) {
  AddGarbage("a");
  AddGarbage("b");
  UnnamedBlobs::Hold other;
  {
    const UnnamedBlobs::Hold hold(unnamed_, "a");
    other = UnnamedBlobs::Hold(unnamed_, "a");
    janitor_->Clean();
    EXPECT_THAT(Garbage(), ElementsAre("a"));
  }
  // Two calls may hold the same.
  janitor_->Clean();
  EXPECT_TRUE(IsStored("a"));
  other = UnnamedBlobs::Hold();
  janitor_->Clean();
  EXPECT_THAT(Garbage(), IsEmpty());
  EXPECT_FALSE(IsStored("a"));
}

}  // namespace
}  // namespace ballast::server::testing
