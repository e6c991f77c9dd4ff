// SPDX-License-Identifier: Apache-2.0
// Safety rows over the wire: who sets them, what is refused, and what a worker gets.
#include "server/api/safety_rows_service.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class SafetyRowsServiceTest : public ServerFixture {
 protected:
  static std::string SafetyRows(int rows = 20) {
    std::string lines;
    for (int i = 0; i < rows; ++i) {
      absl::StrAppend(&lines, R"({"prompt": "safety prompt )", i,
                      R"(", "completion": "I must decline"})", "\n");
    }
    return lines;
  }

  absl::StatusOr<admin::v1::SafetyRows> Set(const std::string& rows, double share = 0,
                                            const std::string& name = "baseModels/tiny/safetyRows",
                                            const char* key = kOperatorKey) {
    admin::v1::SetSafetyRowsRequest request;
    request.set_name(name);
    request.set_share(share);
    request.set_rows(rows);
    admin::v1::SafetyRows set;
    const absl::Status status =
        FromGrpcStatus(safety_rows_->SetSafetyRows(ContextWith(key).get(), request, &set));
    if (!status.ok()) return status;
    return set;
  }

  absl::StatusOr<admin::v1::SafetyRows> Get() {
    admin::v1::GetSafetyRowsRequest request;
    request.set_name("baseModels/tiny/safetyRows");
    admin::v1::SafetyRows rows;
    const absl::Status status = FromGrpcStatus(
        safety_rows_->GetSafetyRows(ContextWith(kOperatorKey).get(), request, &rows));
    if (!status.ok()) return status;
    return rows;
  }

  absl::Status Remove() {
    admin::v1::RemoveSafetyRowsRequest request;
    request.set_name("baseModels/tiny/safetyRows");
    google::protobuf::Empty empty;
    return FromGrpcStatus(
        safety_rows_->RemoveSafetyRows(ContextWith(kOperatorKey).get(), request, &empty));
  }
};

TEST_F(SafetyRowsServiceTest, AreSetShownReplacedAndRemovedAndNeverReturned) {
  ASSERT_OK(ImportTiny());
  EXPECT_THAT(Get(), StatusIs(kNotFound, "SAFETY_ROWS_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const auto rows, Set(SafetyRows()));
  EXPECT_EQ(rows.share(), 0.5);
  EXPECT_EQ(rows.rows(), 20);
  EXPECT_EQ(rows.digest(), DigestOf(SafetyRows()));
  EXPECT_GT(rows.longest_row_tokens(), 0);
  ASSERT_OK_AND_ASSIGN(const auto shown, Get());
  EXPECT_EQ(shown.SerializeAsString(), rows.SerializeAsString());
  EXPECT_THAT(EverythingStored(), HasSubstr("safety prompt 19"));
  EXPECT_THAT(shown.DebugString(), Not(HasSubstr("safety prompt")));

  ASSERT_OK(Set(SafetyRows(30), 0.25));
  EXPECT_EQ(Get()->share(), 0.25);
  ASSERT_OK(Remove());
  EXPECT_THAT(Get(), StatusIs(kNotFound, "SAFETY_ROWS_NOT_FOUND"));
  EXPECT_THAT(Remove(), StatusIs(kNotFound, "SAFETY_ROWS_NOT_FOUND"));
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("safety prompt")));
}

TEST_F(SafetyRowsServiceTest, WhatIsWrongIsNamedAndNothingIsChanged) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto before, Set(SafetyRows()));
  const auto bad_line = Set(SafetyRows() + "{\"prompt\": 7}\n");
  EXPECT_THAT(bad_line, StatusIs(kInvalid, "SAFETY_ROWS_INVALID"));
  EXPECT_THAT(std::string(bad_line.status().message()), HasSubstr("rows line 21"));
  EXPECT_THAT(Set(SafetyRows(15)), StatusIs(kInvalid, "SAFETY_ROWS_INVALID"));
  EXPECT_THAT(Set(""), StatusIs(kInvalid, "SAFETY_ROWS_INVALID"));
  for (const double share : {-0.1, 1.5}) {
    EXPECT_THAT(Set(SafetyRows(), share), StatusIs(kInvalid, "SAFETY_SHARE_OUT_OF_RANGE"));
  }
  EXPECT_THAT(Set(std::string((1 << 20) + 1, ' ')), StatusIs(kInvalid, "SAFETY_ROWS_TOO_LARGE"));
  EXPECT_THAT(Set(SafetyRows(), 0, "baseModels/tiny"), StatusIs(kInvalid, "NAME_INVALID"));
  EXPECT_THAT(Set(SafetyRows(), 0, "baseModels/none/safetyRows"),
              StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_THAT(Set(SafetyRows(), 0, "baseModels/tiny/safetyRows", kTenantKey),
              StatusIs(absl::StatusCode::kPermissionDenied, "OPERATOR_ONLY"));
  EXPECT_EQ(Get()->SerializeAsString(), before.SerializeAsString());
}

TEST_F(SafetyRowsServiceTest, AWorkerGetsThoseOfTheJobsBaseAsTheyWere) {
  MakeReady();
  ASSERT_OK(Set(SafetyRows(), 0.5));
  ASSERT_OK(CreateJob(UploadRows(40)));
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  const auto& given = taken.work().fine_tune().safety_rows();
  EXPECT_EQ(given.share(), 0.5);
  EXPECT_EQ(given.rows().rows_accepted(), 20);
  EXPECT_EQ(given.rows().digest(), DigestOf(SafetyRows()));
  ASSERT_OK_AND_ASSIGN(const std::string rows,
                       ReadBlob("w", taken.work().lease(), given.rows().blob()));
  EXPECT_EQ(rows, SafetyRows());
}

}  // namespace
}  // namespace ballast::server::testing
