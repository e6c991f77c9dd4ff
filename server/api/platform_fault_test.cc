// SPDX-License-Identifier: Apache-2.0
#include "server/api/platform_fault.h"

#include <cerrno>
#include <string>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlatformFaultTest, TellsCallersNoPath) {
  for (const int error_number : {ENOENT, EACCES, ENOSPC, EMFILE, EIO}) {
    const absl::Status fault = FileError(error_number, "open", "/srv/secret/ballast.db");
    ASSERT_TRUE(IsPlatformFault(fault)) << fault;
    const absl::Status told = WithoutServerDetails(fault);
    EXPECT_THAT(told, StatusIs(error_number == ENOSPC ? absl::StatusCode::kResourceExhausted
                                                      : absl::StatusCode::kUnavailable,
                               ErrorReason(fault)));
    // Payloads included.
    EXPECT_THAT(told.ToString(absl::StatusToStringMode::kWithEverything), Not(HasSubstr("secret")));
    EXPECT_THAT(ForLog(fault), HasSubstr("/srv/secret/ballast.db"));
  }
}

TEST(PlatformFaultTest, WaitingDoesNotMendLostRecords) {
  EXPECT_THAT(WithoutServerDetails(MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT", "x")),
              StatusIs(absl::StatusCode::kDataLoss, "STORE_CORRUPT"));
  EXPECT_THAT(WithoutServerDetails(MakeError(absl::StatusCode::kInternal, "STORE_IO", "x")),
              StatusIs(absl::StatusCode::kUnavailable, "STORE_IO"));
}

TEST(PlatformFaultTest, WhatACallerSentKeepsItsText) {
  for (const char* reason : {"FILE_MISSING", "FILE_TOO_LARGE", "FILE_NOT_ALLOWED",
                             "DELTA_FILE_NOT_FOUND", "DATASET_NOT_FOUND"}) {
    const absl::Status status = FieldError("data", reason, "a tenant's words");
    EXPECT_FALSE(IsPlatformFault(status)) << reason;
    EXPECT_EQ(ForLog(status), reason);
  }
  EXPECT_FALSE(IsPlatformFault(absl::OkStatus()));
}

}  // namespace
}  // namespace ballast::server
