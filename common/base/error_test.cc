// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"

#include "common/base/testing/status_matchers.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ballast::testing::StatusIs;

TEST(ErrorTest, CarriesDomainReasonAndMetadata) {
  const absl::Status status = MakeError(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND",
                                        "no data set of that name", {{"name", "d1"}});
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(info.ParseFromString(std::string(*status.GetPayload(kErrorInfoUrl))));
  EXPECT_EQ(info.domain(), "ballast");
  EXPECT_EQ(info.reason(), "DATASET_NOT_FOUND");
  EXPECT_EQ(info.metadata().at("name"), "d1");
}

TEST(ErrorTest, FieldErrorNamesTheField) {
  const absl::Status status = FieldError("epochs", "EPOCHS_OUT_OF_RANGE", "epochs is 0");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "EPOCHS_OUT_OF_RANGE"));
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(bad_request.ParseFromString(std::string(*status.GetPayload(kBadRequestUrl))));
  EXPECT_EQ(bad_request.field_violations(0).field(), "epochs");
}

TEST(ErrorTest, RetryDelayKeepsFractions) {
  const absl::Status status = WithRetry(MakeError(absl::StatusCode::kUnavailable, "BUSY", "later"),
                                        absl::Milliseconds(1500));
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(std::string(*status.GetPayload(kRetryInfoUrl))));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(ErrorTest, AnnotateKeepsCodeAndReason) {
  const absl::Status status =
      Annotate(MakeError(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT", "bad tag"), "opening v1");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"));
  EXPECT_EQ(status.message(), "opening v1: bad tag");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(ErrorTest, StatusWithoutReasonHasAnEmptyOne) {
  EXPECT_EQ(ErrorReason(absl::InternalError("x")), "");
}

TEST(ErrorTest, BytesThatAreNoTextDoNotCostThePayloads) {
  const absl::Status made =
      MakeError(absl::StatusCode::kNotFound, "FILE_NOT_FOUND", "no \xFF", {{"path", "a\xE2\x82"}});
  EXPECT_THAT(made, StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
  EXPECT_EQ(made.message(), "no \xEF\xBF\xBD");
  EXPECT_THAT(Annotate(made, "\xFF").message(), "\xEF\xBF\xBD: no \xEF\xBF\xBD");
  for (const absl::Status& status :
       {FieldError("f\xFF", "BAD", "no \xFF"), FieldErrors("BAD", "no", {{"f\xFF", "no \xFF"}})}) {
    EXPECT_EQ(ErrorReason(status), "BAD");
    google::rpc::BadRequest bad_request;
    EXPECT_TRUE(bad_request.ParseFromString(std::string(*status.GetPayload(kBadRequestUrl))));
  }
}

}  // namespace
}  // namespace ballast
