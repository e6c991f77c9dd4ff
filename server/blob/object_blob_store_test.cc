// SPDX-License-Identifier: Apache-2.0
#include "server/blob/object_blob_store.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/blob_store_suite.h"
#include "server/testing/by_link.h"
#include "server/testing/test_object_store.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::BlobLinkSuite;
using ::ballast::server::testing::BlobStoreSuite;
using ::ballast::server::testing::GetByLink;
using ::ballast::server::testing::PutByLink;
using ::ballast::server::testing::TestObjectStore;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

// A prefix of its own for each folder.
std::unique_ptr<BlobStore> MakeObjectsWith(
    const std::string& folder, const std::optional<ObjectBlobStore::LinkOptions>& links) {
  const TestObjectStore there = TestObjectStore::Find();
  return std::move(
             ObjectBlobStore::Open(absl::StrCat(there.url, "/a/prefix/",
                                                std::filesystem::path(folder).filename().string()),
                                   there.options, links))
      .value();
}

std::unique_ptr<BlobStore> MakeObjects(const std::string& folder) {
  return MakeObjectsWith(folder, std::nullopt);
}

std::unique_ptr<BlobStore> MakeObjectsWithLinks(const std::string& folder) {
  return MakeObjectsWith(folder, ObjectBlobStore::LinkOptions());
}

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Objects, BlobStoreSuite, ::testing::Values(MakeObjects));
INSTANTIATE_TEST_SUITE_P(ObjectsWithLinks, BlobStoreSuite, ::testing::Values(MakeObjectsWithLinks));
INSTANTIATE_TEST_SUITE_P(ObjectsWithLinks, BlobLinkSuite, ::testing::Values(MakeObjectsWithLinks));
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
  const auto store = ObjectBlobStore::Open("s3://no-such-bucket/x", there_.options);
  EXPECT_THAT(store, StatusIs(kUnavailable, "OBJECT_STORE"));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("there is no bucket"));
}

TEST_F(ObjectBlobStoreTest, AServerThatIsNotThereIsUnavailable) {
  auto options = there_.options;
  options["endpoint"] = "http://127.0.0.1:1";
  EXPECT_THAT(ObjectBlobStore::Open(there_.url, options), StatusIs(kUnavailable, "OBJECT_STORE"));
}

// Accepts connections, and never answers.
class SilentServer {
 public:
  SilentServer() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(socket_, 16), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~SilentServer() { close(socket_); }
  int port() const { return port_; }

 private:
  int socket_;
  int port_ = 0;
};

TEST_F(ObjectBlobStoreTest, AServerThatDoesNotAnswerIsUnavailableBeforeALeaseEnds) {
  const SilentServer silent;
  auto options = there_.options;
  options["endpoint"] = absl::StrCat("http://127.0.0.1:", silent.port());
  ASSERT_OK_AND_ASSIGN(const auto client, ObjectStoreClient::Open(there_.url, options));
  const absl::Time begin = absl::Now();
  EXPECT_THAT(client->Head("x"), StatusIs(kUnavailable, "OBJECT_STORE"));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(25));
}

TEST_F(ObjectBlobStoreTest, WhatADeletionLeftIsNoUpload) {
  ASSERT_OK(objects_->PutNew("up/@00000001", "second"));
  ASSERT_OK(objects_->PutNew("up/@00000002", "third"));
  EXPECT_THAT(store_->Open("up"), StatusIs(absl::StatusCode::kDataLoss, "BLOB_CORRUPT"));
  EXPECT_THAT(store_->OpenAppend("up"), StatusIs(absl::StatusCode::kDataLoss, "BLOB_CORRUPT"));
  ASSERT_OK(store_->DeletePrefix("up"));
  ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("up"));
  EXPECT_EQ(appender->size_bytes(), 0);
}

TEST_F(ObjectBlobStoreTest, OptionsGoBeforeTheEnvironment) {
  const std::pair<const char*, const char*> others[] = {
      {"AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"},
      {"AWS_ENDPOINT_URL", "http://127.0.0.1:1"},
      {"AWS_ACCESS_KEY_ID", "another"},
      {"AWS_SESSION_TOKEN", "of another"},
      {"AWS_REGION", "elsewhere-1"},
      {"AWS_UNKNOWN_SETTING", "x"}};
  for (const auto& [name, value] : others) setenv(name, value, 1);
  EXPECT_OK(ObjectBlobStore::Open(url_, there_.options));
  for (const auto& [name, value] : others) unsetenv(name);
}

TEST_F(ObjectBlobStoreTest, CredentialsMayComeFromTheEnvironment) {
  auto options = there_.options;
  setenv("AWS_ACCESS_KEY_ID", options["access_key_id"].c_str(), 1);
  setenv("AWS_SECRET_ACCESS_KEY", options["secret_access_key"].c_str(), 1);
  options.erase("access_key_id");
  options.erase("secret_access_key");
  EXPECT_OK(ObjectBlobStore::Open(url_, options));
  unsetenv("AWS_ACCESS_KEY_ID");
  unsetenv("AWS_SECRET_ACCESS_KEY");
}

TEST_F(ObjectBlobStoreTest, ThePrefixOfAUrlMayHaveBlanks) {
  const std::string name = RandomHex(64);
  ASSERT_OK_AND_ASSIGN(
      const auto blanks,
      ObjectStoreClient::Open(absl::StrCat(there_.url, "/a%20b/", name), there_.options));
  ASSERT_OK(blanks->Put("x", "bytes"));
  ASSERT_OK_AND_ASSIGN(const auto outside, ObjectStoreClient::Open(there_.url, there_.options));
  EXPECT_OK(outside->Head(absl::StrCat("a b/", name, "/x")));
}

TEST_F(ObjectBlobStoreTest, RefusesWhatNoStoreHas) {
  for (const char* url : {"", "bucket", "ftp://bucket/x", "file:///tmp/x", "s3://bucket/a//b"}) {
    EXPECT_THAT(ObjectBlobStore::Open(url, there_.options), StatusIs(kInvalid, "CONFIG_INVALID"))
        << url;
  }
  EXPECT_THAT(ObjectBlobStore::Open(there_.url, {{"colour", "red"}}),
              StatusIs(kInvalid, "CONFIG_INVALID"));
}

TEST_F(ObjectBlobStoreTest, AnExpiredLinkIsRefused) {
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  ASSERT_OK_AND_ASSIGN(const auto store,
                       ObjectBlobStore::Open(url_, there_.options,
                                             ObjectBlobStore::LinkOptions{absl::Seconds(2), ""}));
  ASSERT_OK(objects_->Put("a", "bytes"));
  ASSERT_OK_AND_ASSIGN(const BlobLinks links, store->ReadLinks("a"));
  ASSERT_OK_AND_ASSIGN(const BlobWriteLink write, store->WriteLink("in/0"));
  EXPECT_EQ(GetByLink(links.links[0].url, 0, 5).value(), "bytes");
  absl::Status refused;
  for (const absl::Time begin = absl::Now(); refused.ok();) {
    ASSERT_LT(absl::Now() - begin, absl::Seconds(20));
    refused = GetByLink(links.links[0].url, 0, 5).status();
  }
  EXPECT_THAT(refused, StatusIs(kDenied, "LINK_REFUSED"));
  EXPECT_THAT(PutByLink(write.url, write.headers, "late"), StatusIs(kDenied, "LINK_REFUSED"));
  EXPECT_THAT(store->WrittenByLinks("in").value(), IsEmpty());
}

TEST_F(ObjectBlobStoreTest, LinksLeadToTheEndpointThatTheyAreFor) {
  ASSERT_OK_AND_ASSIGN(
      const auto store,
      ObjectBlobStore::Open(url_, there_.options,
                            ObjectBlobStore::LinkOptions{absl::Minutes(1), "https://outside:9"}));
  ASSERT_OK(objects_->Put("a", "bytes"));
  ASSERT_OK_AND_ASSIGN(const BlobLinks links, store->ReadLinks("a"));
  EXPECT_THAT(links.links.at(0).url, ::testing::StartsWith("https://outside:9/"));
  EXPECT_THAT(store->WriteLink("in/0").value().url, ::testing::StartsWith("https://outside:9/"));
  // The server itself goes on by its own.
  EXPECT_EQ(store->Size("a").value(), 5);
}

TEST_F(ObjectBlobStoreTest, TheEndpointOfLinksGoesBeforeAllOthers) {
  for (const char* name :
       {"endpoint_url", "aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3"}) {
    auto options = there_.options;
    options[name] = options["endpoint"];
    options.erase("endpoint");
    ASSERT_OK_AND_ASSIGN(
        const auto store,
        ObjectBlobStore::Open(url_, options,
                              ObjectBlobStore::LinkOptions{absl::Minutes(1), "https://outside:9"}));
    EXPECT_THAT(store->WriteLink("in/0").value().url, ::testing::StartsWith("https://outside:9/"))
        << name;
  }
}

TEST_F(ObjectBlobStoreTest, LinksThatCannotBeAreToldWithTheirField) {
  const ObjectBlobStore::LinkOptions outside{absl::Minutes(1), "https://outside:9"};
  EXPECT_OK(ObjectBlobStore::CheckLinks("s3://bucket", outside));
  EXPECT_OK(ObjectBlobStore::CheckLinks("az://container", outside));
  EXPECT_OK(ObjectBlobStore::CheckLinks("gs://bucket", ObjectBlobStore::LinkOptions()));
  const ObjectBlobStore::LinkOptions no_url{absl::Minutes(1), "s3.example.com"};
  const absl::Status refused[] = {ObjectBlobStore::CheckLinks("gs://bucket", outside),
                                  ObjectBlobStore::CheckLinks("s3://bucket", no_url),
                                  ObjectBlobStore::Open("gs://bucket", {}, outside).status()};
  for (const absl::Status& status : refused) {
    EXPECT_THAT(status, StatusIs(kInvalid, "ENDPOINT_INVALID"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("object_store.links.endpoint"));
  }
}

// The store would fetch the bytes by the server's own rights.
TEST_F(ObjectBlobStoreTest, ALinkToWriteDoesNotCopyOtherObjects) {
  ASSERT_OK_AND_ASSIGN(const auto store,
                       ObjectBlobStore::Open(url_, there_.options, ObjectBlobStore::LinkOptions()));
  ASSERT_OK(objects_->Put("hers", "her bytes"));
  const std::string source = url_.substr(std::string("s3:/").size()) + "/hers";
  const BlobWriteLink link = store->WriteLink("in/0").value();
  EXPECT_THAT(PutByLink(link.url, {{"x-amz-copy-source", source}}, ""),
              StatusIs(absl::StatusCode::kPermissionDenied, "LINK_REFUSED"));
  EXPECT_THAT(store->WrittenByLinks("in").value(), IsEmpty());
}

TEST_F(ObjectBlobStoreTest, ALinkHoldsNoSecretKey) {
  ASSERT_OK_AND_ASSIGN(const auto store,
                       ObjectBlobStore::Open(url_, there_.options, ObjectBlobStore::LinkOptions()));
  const std::string url = store->WriteLink("in/0").value().url;
  EXPECT_THAT(url, Not(HasSubstr(there_.options.at("secret_access_key"))));
  EXPECT_THAT(url, HasSubstr("X-Amz-Expires=300"));
}

// Google's and Azure's clouds cannot be reached by tests: this is that their URLs and options are
// understood, no more.
TEST_F(ObjectBlobStoreTest, KnowsTheUrlsOfOtherClouds) {
  EXPECT_OK(ObjectStoreClient::Open("gs://bucket/prefix", {{"skip_signature", "true"}}));
  EXPECT_OK(ObjectStoreClient::Open("az://container/prefix",
                                    {{"account_name", "someone"}, {"access_key", "c29tZXRoaW5n"}}));
}

TEST_F(ObjectBlobStoreTest, SignsLinksOfAzure) {
  ASSERT_OK_AND_ASSIGN(const auto azure, ObjectStoreClient::Open("az://container/prefix",
                                                                 {{"account_name", "someone"},
                                                                  {"access_key", "c29tZXRoaW5n"}}));
  ASSERT_OK_AND_ASSIGN(const std::string url,
                       azure->Link("a", ObjectStoreClient::LinkFor::kPut, absl::Minutes(5)));
  EXPECT_THAT(url, HasSubstr("/container/prefix/a?"));
  EXPECT_THAT(url, HasSubstr("sig="));
}

}  // namespace
}  // namespace ballast::server
