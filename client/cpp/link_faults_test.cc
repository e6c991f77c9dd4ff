// SPDX-License-Identifier: Apache-2.0
// What may be wrong with links, with the server that gives them, and with the machine.
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/link_client.h"
#include "client/cpp/upload_internal.h"
#include "client/testing/link_transfer_fixture.h"
#include "common/base/testing/status_matchers.h"
#include "common/http/testing/no_authorities.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::client {
namespace {

using ::ballast::client::testing::LinkTransferTest;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
// Offsets and sizes of what no file of 1 MB has.
constexpr std::pair<int64_t, int64_t> kNowhere[] = {
    {-1, 1000}, {0, -1}, {kMost, 1}, {1, kMost}, {kMost, kMost}, {0, 1'000'001}, {1'000'000, 1},
};

class LinkFaultsTest : public LinkTransferTest {
 protected:
  absl::StatusOr<v1::Dataset> Upload(const std::string& bytes) {
    return MakeClient().UploadDataset("d1", WriteTemp(bytes), options_);
  }
  // FinishDirectUpload fails so; the bytes that the server has by then are `stored`.
  void FailFinish(const char* reason, const std::string& stored) {
    server_.finish_direct_upload = [=, this](auto&, const auto&, auto&) -> absl::Status {
      ++finishes_;
      digest_ = DigestOf(stored);
      return MakeError(kPrecondition, reason, "the server says so");
    };
  }
};

TEST_F(LinkFaultsTest, AnEarlierCallHasEndedTheUpload) {
  ScriptUpload();
  const std::string bytes = Bytes(500'000);
  // The first call runs on behind a connection that is cut, and ends before the second one.
  FailFinish("UPLOAD_FINISHED", bytes);
  ASSERT_OK_AND_ASSIGN(const auto dataset, Upload(bytes));
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
  EXPECT_EQ(finishes_, 1);
  EXPECT_THAT(through_server_, IsEmpty());
}

TEST_F(LinkFaultsTest, ADataSetOfOtherBytesIsNoSuccess) {
  ScriptUpload();
  FailFinish("UPLOAD_FINISHED", "the bytes of another upload");
  EXPECT_THAT(Upload(Bytes(500'000)), StatusIs(kPrecondition, "UPLOAD_FINISHED"));
  // Known from the start.
  EXPECT_THAT(Upload(Bytes(500'000)), StatusIs(kPrecondition, "UPLOAD_FINISHED"));
  EXPECT_EQ(finishes_, 1);
  // Through the server alone.
  options_.links = false;
  server_.get_upload_status = [](auto&, const auto&, v1::UploadStatus& status) {
    status.set_finished(true);
    return absl::OkStatus();
  };
  EXPECT_THAT(Upload(Bytes(500'000)), StatusIs(kPrecondition, "UPLOAD_FINISHED"));
  EXPECT_OK(Upload("the bytes of another upload"));
}

TEST_F(LinkFaultsTest, AServerThatGivesLinksNoMoreAtTheEndGetsTheBytes) {
  ScriptUpload();
  FailFinish("LINKS_UNAVAILABLE", "");
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(Upload(bytes));
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_THAT(fallbacks_, ElementsAre("the server says so"));
}

TEST_F(LinkFaultsTest, AMachineWithoutAuthoritiesGoesThroughTheServerAndSaysWhy) {
  const ballast::testing::NoAuthorities none;
  ScriptUpload();
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(Upload(bytes));
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("CA certificates")));
  fallbacks_.clear();
  through_server_.clear();
  ScriptDelta(bytes);
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("CA certificates")));
  EXPECT_THAT(store_.requests(), IsEmpty());
}

TEST_F(LinkFaultsTest, AMachineWithoutAuthoritiesNeedsNoneWithoutLinks) {
  const ballast::testing::NoAuthorities none;
  ScriptUpload();
  server_.start_direct_upload = [](auto&, const auto&, auto&) {
    return MakeError(kPrecondition, "LINKS_UNAVAILABLE", "none");
  };
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(Upload(bytes));
  ScriptDelta(bytes);
  server_.get_delta_links = nullptr;
  ASSERT_OK(Download());
  EXPECT_TRUE(Downloaded() == bytes);
  EXPECT_THAT(fallbacks_, IsEmpty());
}

TEST_F(LinkFaultsTest, LinksToPartsThatTheFileDoesNotHaveAreNotUsed) {
  const std::string bytes = Bytes(1'000'000);
  for (const auto& [offset, size] : kNowhere) {
    ScriptUpload();
    server_.start_direct_upload = [this, part = std::pair(offset, size)](auto&, const auto&,
                                                                         v1::DirectUpload& upload) {
      upload.add_parts()->set_offset(part.first);
      upload.mutable_parts(0)->set_size_bytes(part.second);
      upload.mutable_parts(0)->set_url(store_.Url("/in"));
      return absl::OkStatus();
    };
    fallbacks_.clear();
    through_server_.clear();
    ASSERT_OK(Upload(bytes)) << offset << " " << size;
    EXPECT_TRUE(through_server_ == bytes);
    EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("parts that the file does not have")));
  }
  EXPECT_THAT(store_.requests(), IsEmpty());
}

TEST_F(LinkFaultsTest, LinksToBytesThatTheFileDoesNotHaveAreNotUsed) {
  const std::string bytes = Bytes(1'000'000);
  ScriptDelta(bytes);
  for (const auto& [offset, size] : kNowhere) {
    server_.get_delta_links = [this, link = std::pair(offset, size)](auto&, const auto&,
                                                                     v1::DeltaLinks& links) {
      links.add_links()->set_offset(link.first);
      links.mutable_links(0)->set_size_bytes(link.second);
      links.mutable_links(0)->set_url(store_.Url("/a"));
      return absl::OkStatus();
    };
    fallbacks_.clear();
    ASSERT_OK(Download()) << offset << " " << size;
    EXPECT_TRUE(Downloaded() == bytes);
    EXPECT_THAT(fallbacks_, ElementsAre(HasSubstr("adapter/weights does not have")));
    std::filesystem::remove_all(folder_ / "delta");
  }
  EXPECT_THAT(store_.requests(), IsEmpty());
}

TEST_F(LinkFaultsTest, AServerThatForgetsPartsIsNotSentThemForEver) {
  ScriptUpload();
  const auto start = server_.start_direct_upload;
  server_.start_direct_upload = [&](auto& context, const auto& request, v1::DirectUpload& upload) {
    const absl::Status status = start(context, request, upload);
    upload.mutable_parts(0)->set_stored(false);
    upload.mutable_parts(1)->set_url("http://127.0.0.1:1/nobody");
    return starts_ < 100 ? status : absl::InternalError("it goes on and on");
  };
  const std::string bytes = Bytes(1'000'000);
  ASSERT_OK(Upload(bytes));
  EXPECT_TRUE(through_server_ == bytes);
  EXPECT_EQ(starts_, 2);
}

TEST_F(LinkFaultsTest, HashingEndsWhereTheFileDoes) {
  ASSERT_OK_AND_ASSIGN(UploadSource source, UploadSource::Open(WriteTemp("bytes")));
  EXPECT_THAT(source.HashUpTo(6), StatusIs(kPrecondition, "FILE_CHANGED"));
  EXPECT_THAT(source.HashUpTo(kMost), StatusIs(kPrecondition, "FILE_CHANGED"));
  std::string bytes;
  EXPECT_THAT(source.Read(6, 1, bytes), StatusIs(kPrecondition, "FILE_CHANGED"));
  EXPECT_THAT(source.Read(-1, 1, bytes), StatusIs(kPrecondition, "FILE_CHANGED"));
  ASSERT_OK(source.HashUpTo(5));
  EXPECT_EQ(source.Digest(), DigestOf("bytes"));
}

TEST(LinkRoundsTest, AStoreThatIsTooSlowIsLeftWhateverItBrought) {
  const auto failed = [](const char* reason) {
    return MakeError(absl::StatusCode::kUnavailable, reason, "it failed");
  };
  LinkRounds rounds;
  EXPECT_TRUE(rounds.GoOn(true, failed("LINK_UNREACHABLE")));
  EXPECT_TRUE(rounds.GoOn(false, failed("LINK_BROKEN")));
  EXPECT_FALSE(rounds.GoOn(true, failed("LINK_SLOW")));
}

}  // namespace
}  // namespace ballast::client
