// SPDX-License-Identifier: Apache-2.0
#include "server/blob/object_blob_store.h"

#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/blob_store_suite.h"
#include "server/testing/test_object_store.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::BlobStoreSuite;
using ::ballast::server::testing::TestObjectStore;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kUnfit = absl::StatusCode::kFailedPrecondition;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

// A prefix of its own for each folder.
std::unique_ptr<BlobStore> MakeObjects(const std::string& folder) {
  const TestObjectStore there = TestObjectStore::Find();
  return std::move(
             ObjectBlobStore::Open(absl::StrCat(there.url, "/a/prefix/",
                                                std::filesystem::path(folder).filename().string()),
                                   there.options))
      .value();
}

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Objects, BlobStoreSuite, ::testing::Values(MakeObjects));
}  // namespace testing

namespace {

class ObjectBlobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    url_ = absl::StrCat(there_.url, "/", RandomHex(64));
    ASSERT_OK_AND_ASSIGN(store_, ObjectBlobStore::Open(url_, there_.options));
    ASSERT_OK_AND_ASSIGN(objects_, ObjectStoreClient::Open(url_, there_.options));
  }

  const TestObjectStore there_ = TestObjectStore::Find();
  std::string url_;
  std::unique_ptr<ObjectBlobStore> store_;
  std::unique_ptr<ObjectStoreClient> objects_;
};

TEST_F(ObjectBlobStoreTest, OfTwoThatAppendOneIsTold) {
  ASSERT_OK_AND_ASSIGN(const auto first, store_->OpenAppend("up"));
  ASSERT_OK_AND_ASSIGN(const auto second, store_->OpenAppend("up"));
  ASSERT_OK(first->Append("mine"));
  ASSERT_OK(second->Append("hers"));
  ASSERT_OK(first->Sync());
  EXPECT_THAT(second->Sync(), StatusIs(absl::StatusCode::kAborted, "BLOB_BUSY"));
  EXPECT_EQ(store_->OpenAppend("up").value()->Digest().value(), DigestOf("mine"));
}

TEST_F(ObjectBlobStoreTest, APieceWhoseAnswerWasLostIsNotAppendedTwice) {
  ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("up"));
  ASSERT_OK(appender->Append("once"));
  // As the first try left it.
  ASSERT_OK(objects_->PutNew("up/@00000001", "once"));
  ASSERT_OK(appender->Sync());
  EXPECT_EQ(store_->Size("up").value(), 4);
}

TEST_F(ObjectBlobStoreTest, AnUploadThatIsGivenUpLeavesNoObject) {
  {
    ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create("blobs/large"));
    ASSERT_OK(writer->Append(std::string(ObjectStoreClient::kPartBytes + 1, 'x')));
  }
  ASSERT_OK_AND_ASSIGN(const auto left, objects_->List("blobs"));
  EXPECT_THAT(left, IsEmpty());
}

TEST_F(ObjectBlobStoreTest, OpeningLeavesNoObject) {
  ASSERT_OK_AND_ASSIGN(const auto outside, ObjectStoreClient::Open(there_.url, there_.options));
  ASSERT_OK_AND_ASSIGN(const auto left, outside->List(url_.substr(there_.url.size() + 1)));
  EXPECT_THAT(left, IsEmpty());
}

TEST_F(ObjectBlobStoreTest, DeletesMoreThanOnePageOfObjects) {
  for (int i = 0; i < 1010; ++i) ASSERT_OK(objects_->Put(absl::StrCat("many/", i), "x"));
  ASSERT_OK(objects_->Put("many-others", "x"));
  ASSERT_OK_AND_ASSIGN(const auto before, objects_->List("many"));
  EXPECT_EQ(before.size(), 1010u);
  ASSERT_OK(store_->DeletePrefix("many"));
  ASSERT_OK_AND_ASSIGN(const auto after, objects_->List("many"));
  EXPECT_THAT(after, IsEmpty());
  EXPECT_OK(objects_->Head("many-others"));
}

TEST_F(ObjectBlobStoreTest, AWrongKeyIsToldAtTheStartWithoutTheKey) {
  auto options = there_.options;
  options["secret_access_key"] = "not-the-key";
  const auto store = ObjectBlobStore::Open(there_.url, options);
  EXPECT_THAT(store, StatusIs(kUnavailable, "OBJECT_STORE"));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("access is denied"));
  EXPECT_THAT(std::string(store.status().message()), Not(HasSubstr("not-the-key")));
}

TEST_F(ObjectBlobStoreTest, ABucketThatIsNotThereIsToldAtTheStart) {
  EXPECT_THAT(ObjectBlobStore::Open("s3://no-such-bucket/x", there_.options),
              StatusIs(kUnfit, "OBJECT_STORE_UNFIT"));
}

TEST_F(ObjectBlobStoreTest, AServerThatIsNotThereIsUnavailable) {
  auto options = there_.options;
  options["endpoint"] = "http://127.0.0.1:1";
  EXPECT_THAT(ObjectBlobStore::Open(there_.url, options), StatusIs(kUnavailable, "OBJECT_STORE"));
}

TEST_F(ObjectBlobStoreTest, RefusesWhatNoStoreHas) {
  for (const char* url : {"", "bucket", "ftp://bucket/x", "file:///tmp/x", "s3://bucket/a//b"}) {
    EXPECT_THAT(ObjectBlobStore::Open(url, there_.options), StatusIs(kInvalid, "CONFIG_INVALID"))
        << url;
  }
  EXPECT_THAT(ObjectBlobStore::Open(there_.url, {{"colour", "red"}}),
              StatusIs(kInvalid, "CONFIG_INVALID"));
}

// Google's and Azure's clouds cannot be reached by tests: this is that their URLs and options are
// understood, no more.
TEST_F(ObjectBlobStoreTest, KnowsTheUrlsOfOtherClouds) {
  EXPECT_OK(ObjectStoreClient::Open("gs://bucket/prefix", {{"skip_signature", "true"}}));
  EXPECT_OK(ObjectStoreClient::Open("az://container/prefix",
                                    {{"account_name", "someone"}, {"access_key", "c29tZXRoaW5n"}}));
}

}  // namespace
}  // namespace ballast::server
