// SPDX-License-Identifier: Apache-2.0
#include "client/cli/error_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "common/base/error.h"
#include "common/rpc/grpc_status.h"

namespace ballast::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ExitCodeTest, FollowsTheCanonicalCode) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), kExitOk);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), kExitFailed);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), kExitFailed);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), kExitNotFound);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), kExitRefused);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), kExitRefused);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), kExitUnavailable);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), kExitUnavailable);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), kExitNotAllowed);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), kExitNotAllowed);
  EXPECT_EQ(ExitCodeOf(WithExitCode(absl::AbortedError(""), kExitEndedBadly)), kExitEndedBadly);
}

TEST(ExitCodeTest, APayloadThatIsNoExitCodeIsIgnored) {
  for (const char* payload : {"0", "-1", "8", "99999999999999999999", "x", ""}) {
    absl::Status status = absl::NotFoundError("");
    status.SetPayload("ballast.cli/exit-code", absl::Cord(payload));
    EXPECT_EQ(ExitCodeOf(status), kExitNotFound) << payload;
  }
}

TEST(ExitCodeTest, AServerDoesNotChooseIt) {
  const absl::Status sent = WithExitCode(absl::NotFoundError(""), kExitUsage);
  EXPECT_EQ(ExitCodeOf(FromGrpcStatus(ToGrpcStatus(sent))), kExitNotFound);
}

TEST(DescribeErrorTest, OneFieldIsNotSaidTwice) {
  const std::string text = DescribeError(
      FieldError("hyperparameters.learning_rate", "LEARNING_RATE_OUT_OF_RANGE", "too large"));
  EXPECT_EQ(text,
            "error: too large\n"
            "reason: LEARNING_RATE_OUT_OF_RANGE (INVALID_ARGUMENT)\n"
            "field: hyperparameters.learning_rate\n");
}

TEST(DescribeErrorTest, EveryViolationHasItsLine) {
  const std::string text = DescribeError(FieldErrors("ROWS_INVALID", "2 rows are wrong",
                                                     {{"line 3", "no turn"}, {"line 9", "empty"}}));
  EXPECT_THAT(text, HasSubstr("  line 3: no turn\n  line 9: empty\n"));
}

TEST(DescribeErrorTest, SaysWhatToTypeAndWhenToRetry) {
  EXPECT_THAT(DescribeError(MakeError(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND", "none")),
              HasSubstr("try: ballast dataset list\n"));
  EXPECT_THAT(DescribeError(WithRetry(absl::UnavailableError("busy"), absl::Seconds(4))),
              HasSubstr("retry: waiting 4 s may help\n"));
  EXPECT_THAT(DescribeError(absl::InternalError("x")), HasSubstr("reason: INTERNAL\n"));
}

TEST(DescribeErrorTest, ServersCannotDriveTheTerminal) {
  EXPECT_THAT(DescribeError(absl::InternalError("a\033[2J")), Not(HasSubstr("\033")));
}

TEST(DescribeErrorJsonTest, BytesThatAreNoTextAreReplaced) {
  const auto error =
      nlohmann::json::parse(DescribeErrorJson(absl::InternalError("a\xFF")))["error"];
  EXPECT_EQ(error["message"], "a\xEF\xBF\xBD");
}

TEST(DescribeErrorJsonTest, IsOneLineThatParses) {
  const std::string text = DescribeErrorJson(WithRetry(
      FieldError("base_model", "BASE_MODEL_NOT_FOUND", "none \"here\"\n"), absl::Seconds(2)));
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const auto error = nlohmann::json::parse(text)["error"];
  EXPECT_EQ(error["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(error["reason"], "BASE_MODEL_NOT_FOUND");
  EXPECT_EQ(error["violations"][0]["field"], "base_model");
  EXPECT_EQ(error["retry_after_seconds"], 2.0);
  EXPECT_EQ(error["exit_code"], 4);
  EXPECT_EQ(error["hint"], "ballast model list");
}

}  // namespace
}  // namespace ballast::cli
