// SPDX-License-Identifier: Apache-2.0
// Data sets over gRPC: uploads that break off, go on, lie about offset or digest, and row checks
// behind them.
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "server/testing/full_disk.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class DatasetServiceTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerFixture::SetUp();
    ASSERT_OK(ImportTiny());
    ASSERT_OK_AND_ASSIGN(const auto dataset, CreateDataset());
    name_ = dataset.name();
    EXPECT_EQ(dataset.state(), v1::Dataset::AWAITING_UPLOAD);
  }

  v1::UploadStatus Status() { return UploadStatusOf(name_); }

  absl::Status Delete(const std::string& etag = "") {
    v1::DeleteDatasetRequest request;
    request.set_name(name_);
    request.set_etag(etag);
    google::protobuf::Empty empty;
    return FromGrpcStatus(datasets_->DeleteDataset(ContextWith(kTenantKey).get(), request, &empty));
  }

  std::string name_;
};

TEST_F(DatasetServiceTest, UploadsAndReportsEveryBadRow) {
  const std::string bytes =
      Rows(12) + "{broken\n" + R"({"messages": [{"role": "user", "content": "no answer"}]})" + "\n";
  ASSERT_OK_AND_ASSIGN(const auto response, Write(name_, 0, bytes, DigestOf(bytes)));
  EXPECT_EQ(response.committed_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(response.dataset().digest(), DigestOf(bytes));
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const auto dataset, GetDataset(name_));
  EXPECT_EQ(dataset.state(), v1::Dataset::READY);
  EXPECT_EQ(dataset.report().rows_accepted(), 12);
  EXPECT_EQ(dataset.report().rows_rejected(), 2);
  ASSERT_EQ(dataset.report().issues_size(), 2);
  EXPECT_EQ(dataset.report().issues(0).line(), 13);
  EXPECT_EQ(dataset.report().issues(1).reason(), "NO_ASSISTANT_TURN");
  EXPECT_GT(dataset.report().total_tokens(), dataset.report().supervised_tokens());
  EXPECT_THAT(dataset.report().ShortDebugString(), Not(HasSubstr("no answer")));
}

TEST_F(DatasetServiceTest, AFileWithoutAGoodRowIsInvalid) {
  const std::string bytes = "nothing\n";
  ASSERT_OK(Write(name_, 0, bytes, DigestOf(bytes)));
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const auto dataset, GetDataset(name_));
  EXPECT_EQ(dataset.state(), v1::Dataset::INVALID);
}

TEST_F(DatasetServiceTest, AWrongOffsetSaysWhereToGoOn) {
  ASSERT_OK(Write(name_, 0, "12345", ""));
  for (const int64_t offset : {0, 4, 6, -1}) {
    const absl::Status status = Write(name_, offset, "x", "").status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kOutOfRange, "WRITE_OFFSET_MISMATCH"));
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(info.ParseFromString(std::string(status.GetPayload(kErrorInfoUrl).value())));
    EXPECT_EQ(info.metadata().at("committed_bytes"), "5");
  }
  EXPECT_EQ(Status().committed_bytes(), 5);
}

TEST_F(DatasetServiceTest, AWrongDigestKeepsNothing) {
  EXPECT_THAT(Write(name_, 0, "12345", DigestOf("other")),
              StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_EQ(Status().committed_bytes(), 0);
  EXPECT_THAT(Write(name_, 0, "12345", "sha256:short"), StatusIs(kInvalid, "DIGEST_INVALID"));
}

TEST_F(DatasetServiceTest, GoesOnAfterABreakAndARestart) {
  const std::string bytes = Rows(2000);
  const size_t half = bytes.size() / 2;
  {
    // The client goes away in the middle.
    auto context = ContextWith(kTenantKey);
    v1::WriteDatasetResponse response;
    const auto stream = datasets_->WriteDataset(context.get(), &response);
    v1::WriteDatasetRequest request;
    request.set_name(name_);
    request.set_data(bytes.substr(0, half));
    ASSERT_TRUE(stream->Write(request));
    context->TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  Restart();
  const int64_t committed = Status().committed_bytes();
  EXPECT_TRUE(committed == 0 || committed == static_cast<int64_t>(half)) << committed;
  ASSERT_OK(Write(name_, committed, bytes.substr(static_cast<size_t>(committed), half), ""));
  const int64_t next = Status().committed_bytes();
  EXPECT_EQ(next, committed + static_cast<int64_t>(std::min(half, bytes.size() - committed)));
  ASSERT_OK(Write(name_, next, bytes.substr(static_cast<size_t>(next)), DigestOf(bytes)));
  EXPECT_TRUE(Status().finished());
  EXPECT_EQ(Status().committed_bytes(), static_cast<int64_t>(bytes.size()));
}

TEST_F(DatasetServiceTest, RestartChecksWhatWasUploadedBefore) {
  const std::string bytes = Rows(10);
  ASSERT_OK(Write(name_, 0, bytes, DigestOf(bytes)));
  Restart();
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const auto dataset, GetDataset(name_));
  EXPECT_EQ(dataset.report().rows_accepted(), 10);
}

TEST_F(DatasetServiceTest, AFinishedUploadIsClosed) {
  ASSERT_OK(Write(name_, 0, "x", DigestOf("x")));
  EXPECT_THAT(Write(name_, 1, "y", ""),
              StatusIs(absl::StatusCode::kFailedPrecondition, "UPLOAD_FINISHED"));
}

TEST_F(DatasetServiceTest, OneUploadAtATime) {
  const auto context = ContextWith(kTenantKey);
  v1::WriteDatasetResponse response;
  const auto stream = datasets_->WriteDataset(context.get(), &response);
  v1::WriteDatasetRequest request;
  request.set_name(name_);
  request.set_data("first");
  ASSERT_TRUE(stream->Write(request));
  while (Status().committed_bytes() < 5) {
  }
  EXPECT_THAT(Write(name_, 5, "x", ""), StatusIs(absl::StatusCode::kAborted, "UPLOAD_IN_PROGRESS"));
  EXPECT_THAT(Delete(), StatusIs(absl::StatusCode::kAborted, "UPLOAD_IN_PROGRESS"));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(response.committed_bytes(), 5);
}

TEST_F(DatasetServiceTest, BoundsMessagesAndFiles) {
  const auto context = ContextWith(kTenantKey);
  v1::WriteDatasetResponse response;
  const auto stream = datasets_->WriteDataset(context.get(), &response);
  v1::WriteDatasetRequest request;
  request.set_name(name_);
  request.set_data(std::string((1 << 20) + 1, 'x'));
  stream->Write(request);
  stream->WritesDone();
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), StatusIs(kInvalid, "CHUNK_TOO_LARGE"));

  options_.max_dataset_bytes = 100;
  Restart();
  EXPECT_THAT(Write(name_, 0, std::string(101, 'x'), ""), StatusIs(kInvalid, "FILE_TOO_LARGE"));
  EXPECT_EQ(Status().committed_bytes(), 0);
}

TEST_F(DatasetServiceTest, AFullDiskKeepsWhatWasCommitted) {
  ASSERT_OK(Write(name_, 0, "12345", ""));
  {
    FullDisk full(100'000);
    const absl::Status status = Write(name_, 5, std::string(300'000, 'x'), "").status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
    EXPECT_THAT(status.ToString(absl::StatusToStringMode::kWithEverything),
                Not(HasSubstr(folder_.path())));
  }
  const int64_t committed = Status().committed_bytes();
  EXPECT_GE(committed, 5);
  EXPECT_LE(committed, 100'000);
  const std::string rest = "the rest";
  ASSERT_OK(Write(name_, committed, rest,
                  DigestOf(absl::StrCat("12345", std::string(committed - 5, 'x'), rest))));
}

TEST_F(DatasetServiceTest, CreateIsIdempotentByRequestId) {
  v1::CreateDatasetRequest request;
  request.set_parent("tenants/acme");
  request.mutable_dataset()->set_base_model("baseModels/tiny");
  request.set_request_id("123e4567-e89b-12d3-a456-426614174000");
  v1::Dataset first, second;
  ASSERT_TRUE(datasets_->CreateDataset(ContextWith(kTenantKey).get(), request, &first).ok());
  ASSERT_TRUE(datasets_->CreateDataset(ContextWith(kTenantKey).get(), request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  request.mutable_dataset()->set_display_name("other");
  EXPECT_THAT(
      FromGrpcStatus(datasets_->CreateDataset(ContextWith(kTenantKey).get(), request, &second)),
      StatusIs(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED"));
  // Another tenant's ids are its own.
  request.set_parent("tenants/other");
  EXPECT_OK(
      FromGrpcStatus(datasets_->CreateDataset(ContextWith(kOtherKey).get(), request, &second)));
}

TEST_F(DatasetServiceTest, ListsInPages) {
  for (int i = 0; i < 4; ++i) ASSERT_OK(CreateDataset());
  v1::ListDatasetsRequest request;
  request.set_parent("tenants/acme");
  request.set_page_size(2);
  int count = 0;
  do {
    v1::ListDatasetsResponse page;
    ASSERT_TRUE(datasets_->ListDatasets(ContextWith(kTenantKey).get(), request, &page).ok());
    count += page.datasets_size();
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && count < 100);
  EXPECT_EQ(count, 5);
  request.set_page_token("forged");
  v1::ListDatasetsResponse page;
  EXPECT_THAT(
      FromGrpcStatus(datasets_->ListDatasets(ContextWith(kTenantKey).get(), request, &page)),
      StatusIs(kInvalid, "PAGE_TOKEN_INVALID"));
}

TEST_F(DatasetServiceTest, DeletesBytesToo) {
  const std::string secret = "find-me-if-you-can";
  ASSERT_OK(Write(name_, 0, secret, ""));
  EXPECT_THAT(EverythingStored(), HasSubstr(secret));
  EXPECT_THAT(Delete("stale"), StatusIs(absl::StatusCode::kAborted, "ETAG_MISMATCH"));
  ASSERT_OK(Delete());
  server_->SettleForTest();
  EXPECT_THAT(GetDataset(name_), StatusIs(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND"));
  EXPECT_THAT(EverythingStored(), Not(HasSubstr(secret)));
}

TEST_F(DatasetServiceTest, ChecksWhatCreateSays) {
  v1::CreateDatasetRequest request;
  request.set_parent("tenants/acme");
  v1::Dataset dataset;
  const auto create = [&] {
    return FromGrpcStatus(
        datasets_->CreateDataset(ContextWith(kTenantKey).get(), request, &dataset));
  };
  request.mutable_dataset()->set_base_model("tiny");
  EXPECT_THAT(create(), StatusIs(kInvalid, "NAME_INVALID"));
  request.mutable_dataset()->set_base_model("baseModels/none");
  EXPECT_THAT(create(), StatusIs(absl::StatusCode::kNotFound, "BASE_MODEL_NOT_FOUND"));
  request.mutable_dataset()->set_base_model("baseModels/tiny");
  request.mutable_dataset()->set_format(static_cast<v1::Dataset::Format>(77));
  EXPECT_THAT(create(), StatusIs(kInvalid, "FORMAT_UNKNOWN"));
}

}  // namespace
}  // namespace ballast::server::testing
