// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/grpc_status.h"

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ballast::testing::IsOk;
using ballast::testing::StatusIs;

TEST(GrpcStatusTest, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_THAT(FromGrpcStatus(grpc::Status::OK), IsOk());
}

TEST(GrpcStatusTest, CodeMessageAndReasonSurviveTheTrip) {
  const absl::Status sent = FieldError("suffix", "SUFFIX_TOO_LONG", "suffix has 80 characters");
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(sent));
  EXPECT_EQ(received, sent);
  EXPECT_THAT(received, StatusIs(absl::StatusCode::kInvalidArgument, "SUFFIX_TOO_LONG"));
}

TEST(GrpcStatusTest, AStatusSurvivesInAMessage) {
  const absl::Status sent = FieldError("suffix", "SUFFIX_TOO_LONG", "suffix has 80 characters");
  EXPECT_EQ(FromRpcStatus(ToRpcStatus(sent)), sent);
  EXPECT_THAT(FromRpcStatus(ToRpcStatus(absl::OkStatus())), IsOk());
}

TEST(GrpcStatusTest, DetailsThatDoNotParseAreDropped) {
  const absl::Status received =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", "\xff\xff\xff"));
  EXPECT_EQ(received, absl::NotFoundError("gone"));
}

TEST(GrpcStatusTest, APeerCannotSetAProgramsOwnPayloads) {
  absl::Status sent = MakeError(absl::StatusCode::kNotFound, "GONE", "gone");
  const absl::Status expected = sent;
  sent.SetPayload("ballast.cli/exit-code", absl::Cord("0"));
  sent.SetPayload("", absl::Cord("x"));
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(sent)), expected);
}

TEST(GrpcStatusTest, AMessageThatIsNoTextKeepsTheDetails) {
  absl::Status sent(absl::StatusCode::kNotFound, "no \xFF");
  MakeError(absl::StatusCode::kNotFound, "GONE", "gone")
      .ForEachPayload(
          [&](absl::string_view url, const absl::Cord& payload) { sent.SetPayload(url, payload); });
  EXPECT_EQ(ErrorReason(FromGrpcStatus(ToGrpcStatus(sent))), "GONE");
}

}  // namespace
}  // namespace ballast
