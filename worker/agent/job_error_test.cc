// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/job_error.h"

#include <string>

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;
using ::testing::HasSubstr;
using ::testing::Not;

struct Case {
  absl::StatusCode code;
  const char* reason;
  JobError::Kind kind;
  const char* told;
};

TEST(JobErrorTest, TellsUsersWhatIsTheirsAndNothingElse) {
  const Case cases[] = {
      {absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE", JobError::USER, "LOSS_NOT_FINITE"},
      {absl::StatusCode::kFailedPrecondition, "DATASET_EMPTY", JobError::USER, "DATASET_EMPTY"},
      {absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", JobError::PLATFORM, "OUT_OF_MEMORY"},
      {absl::StatusCode::kResourceExhausted, "DISK_FULL", JobError::PLATFORM, "OUT_OF_MEMORY"},
      {absl::StatusCode::kFailedPrecondition, "VAULT_KEY_WRONG", JobError::PLATFORM,
       "PROTECTION_UNAVAILABLE"},
      {absl::StatusCode::kDataLoss, "VECTOR_CORRUPT", JobError::PLATFORM, "PROTECTION_UNAVAILABLE"},
      {absl::StatusCode::kInvalidArgument, "VECTOR_SHAPE", JobError::PLATFORM,
       "PROTECTION_UNAVAILABLE"},
      {absl::StatusCode::kInvalidArgument, "SAFETENSORS_TRUNCATED", JobError::PLATFORM,
       "BASE_MODEL_UNUSABLE"},
      {absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ARCHITECTURE", JobError::PLATFORM,
       "BASE_MODEL_UNUSABLE"},
      {absl::StatusCode::kInternal, "", JobError::PLATFORM, "WORKER_FAILED"},
      {absl::StatusCode::kDataLoss, "DATASET_CORRUPT", JobError::PLATFORM, "WORKER_FAILED"},
  };
  for (const Case& c : cases) {
    const JobError error = ToJobError(MakeError(c.code, c.reason, "inner detail 0.125"));
    EXPECT_EQ(error.kind(), c.kind) << c.reason;
    EXPECT_EQ(error.reason(), c.told) << c.reason;
    EXPECT_FALSE(error.message().empty());
    EXPECT_THAT(error.message(), Not(HasSubstr("inner detail"))) << c.reason;
  }
}

TEST(JobErrorTest, TellsOperatorsWhyAVectorFailed) {
  JobError error = ToVectorError(MakeError(absl::StatusCode::kInvalidArgument,
                                           "VECTOR_CONFIG_INVALID", "epochs must be positive"));
  EXPECT_EQ(error.kind(), JobError::USER);
  EXPECT_EQ(error.reason(), "VECTOR_CONFIG_INVALID");
  EXPECT_EQ(error.message(), "epochs must be positive");
  error =
      ToVectorError(MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "no memory"));
  EXPECT_EQ(error.kind(), JobError::PLATFORM);
  EXPECT_EQ(ToVectorError(absl::InternalError("odd")).reason(), "WORKER_FAILED");
}

}  // namespace
}  // namespace ballast::worker::agent
