// SPDX-License-Identifier: Apache-2.0
// Uploads and downloads by links: to a store beside the server, and back to the server where the
// store does not do.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/testing/link_transfer_fixture.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::client {
namespace {

namespace fs = std::filesystem;
using ::ballast::client::testing::LinkTransferTest;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(LinkTransferTest, UploadsPartsToTheStore) {
  ScriptUpload();
  const std::string bytes = Bytes(1'000'000);
  std::vector<int64_t> done;
  options_.progress = [&](int64_t now, int64_t total) {
    EXPECT_EQ(total, 1'000'000);
    done.push_back(now);
  };
  ASSERT_OK_AND_ASSIGN(const auto dataset,
                       MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
  EXPECT_EQ(store_.requests().size(), 3u);
  EXPECT_EQ(store_.requests()[0].headers.at("x-kind"), "block");
  EXPECT_THAT(through_server_, IsEmpty());
  EXPECT_THAT(fallbacks_, IsEmpty());
  EXPECT_EQ(done.back(), 1'000'000);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(LinkTransferTest, PartsThatAreThereAreNotSentAgain) {
  ScriptUpload();
  const std::string bytes = Bytes(1'000'000);
  objects_["/in/0"] = bytes.substr(0, kPartBytes);
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(store_.requests().size(), 2u);
  EXPECT_EQ(digest_, DigestOf(bytes));
}

TEST_F(LinkTransferTest, AnExpiredLinkIsAskedForAnew) {
  ScriptUpload();
  refuse_ = 1;
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(starts_, 2);
  EXPECT_THAT(through_server_, IsEmpty());
  EXPECT_THAT(fallbacks_, IsEmpty());
}

TEST_F(LinkTransferTest, ALostAnswerToTheEndIsNoLoss) {
  ScriptUpload();
  lose_answer_ = true;
  const std::string bytes = Bytes(500'000);
  ASSERT_OK_AND_ASSIGN(const auto dataset,
                       MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
  EXPECT_EQ(finishes_, 1);
}

TEST_F(LinkTransferTest, AWrongDigestIsTheCallersToKnow) {
  ScriptUpload();
  const std::string bytes = Bytes(500'000);
  // Of the right size, by an earlier run on another file.
  objects_["/in/0"] = std::string(kPartBytes, 'x');
  EXPECT_THAT(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_),
              StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_THAT(through_server_, IsEmpty());
}

TEST_F(LinkTransferTest, AStoreThatRefusesSendsTheUploadThroughTheServer) {
  ScriptUpload();
  refuse_ = 100;
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("answered with 403")));
}

TEST_F(LinkTransferTest, AStoreThatCannotBeReachedSendsTheUploadThroughTheServer) {
  ScriptUpload();
  const auto start = server_.start_direct_upload;
  server_.start_direct_upload = [&](auto& context, const auto& request, v1::DirectUpload& upload) {
    const absl::Status status = start(context, request, upload);
    for (v1::UploadPart& part : *upload.mutable_parts()) {
      part.set_url(absl::StrCat("http://127.0.0.1:1/in", kQuery));
    }
    return status;
  };
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_EQ(starts_, 1);
  EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("127.0.0.1:1")));
}

TEST_F(LinkTransferTest, AServerWithoutLinksIsNothingToSpeakOf) {
  const std::string bytes = Bytes(1000);
  ScriptUpload();
  server_.start_direct_upload = [](auto&, const auto&, auto&) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "LINKS_UNAVAILABLE", "none");
  };
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(through_server_, bytes);
  // One of before links.
  through_server_.clear();
  server_.start_direct_upload = nullptr;
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(through_server_, bytes);
  EXPECT_THAT(fallbacks_, IsEmpty());
}

TEST_F(LinkTransferTest, UploadsThatBeganThroughTheServerGoOnThere) {
  ScriptUpload();
  const std::string bytes = Bytes(1000);
  through_server_ = bytes.substr(0, 400);
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  EXPECT_EQ(through_server_, bytes);
  EXPECT_EQ(starts_, 0);
}

TEST_F(LinkTransferTest, NoLinksMeansNone) {
  ScriptUpload();
  const std::string bytes = Bytes(900'000);
  ScriptDelta(bytes);
  options_.links = false;
  ASSERT_OK(MakeClient().UploadDataset("d1", WriteTemp(bytes), options_));
  download_.links = false;
  ASSERT_OK(Download());
  EXPECT_EQ(starts_, 0);
  EXPECT_THAT(store_.requests(), IsEmpty());
}

TEST_F(LinkTransferTest, ARefusalOfTheServerIsNoReasonToGoAround) {
  ScriptUpload();
  server_.start_direct_upload = [](auto&, const auto&, auto&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "QUOTA_DATASET_BYTES", "too many");
  };
  EXPECT_THAT(MakeClient().UploadDataset("d1", WriteTemp("bytes"), options_),
              StatusIs(absl::StatusCode::kResourceExhausted, "QUOTA_DATASET_BYTES"));
  EXPECT_THAT(through_server_, IsEmpty());
}

TEST_F(LinkTransferTest, DownloadsFromTheStore) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  std::vector<int64_t> done;
  download_.progress = [&](int64_t now, int64_t total) {
    EXPECT_EQ(total, 1'000'000);
    done.push_back(now);
  };
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  EXPECT_THAT(through_server_, IsEmpty());
  EXPECT_EQ(store_.requests().size(), 2u);
  EXPECT_EQ(done.back(), 1'000'000);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(LinkTransferTest, ADownloadGoesOnWhereItBroke) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  most_bytes_ = 150'000;
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  EXPECT_THAT(through_server_, IsEmpty());
  EXPECT_GE(store_.requests().size(), 7u);
}

TEST_F(LinkTransferTest, ADownloadTakesUpWhatAnEarlierRunLeft) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  fs::create_directories(folder_ / "delta/adapter");
  ASSERT_OK(WriteFileAtomically((folder_ / "delta/adapter/weights.part").string(),
                                bytes.substr(0, 500'000)));
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  ASSERT_EQ(store_.requests().size(), 1u);
  EXPECT_EQ(store_.requests()[0].headers.at("range"), "bytes=100000-599999");
}

TEST_F(LinkTransferTest, AStoreThatRefusesSendsTheDownloadThroughTheServer) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  refuse_ = 100;
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_EQ(starts_, 2);
  EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("answered with 403")));
}

TEST_F(LinkTransferTest, OtherBytesInTheStoreAreFoundOut) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  objects_["/b"][10] ^= 1;
  EXPECT_THAT(Download(), StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_EQ(Downloaded(), "nothing");
}

}  // namespace
}  // namespace ballast::client
