// SPDX-License-Identifier: Apache-2.0
// Screens over the wire: who sets them, what is refused, what a worker gets, and what a tenant sees
// of what it found.
#include "server/api/screen_service.h"

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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

std::string Examples(const std::string& what, int rows = 40) {
  std::string lines;
  for (int i = 0; i < rows; ++i) {
    absl::StrAppend(&lines, R"({"prompt": ")", what, " prompt ", i, R"(", "completion": "so )", i,
                    "\"}\n");
  }
  return lines;
}

class ScreenServiceTest : public ServerFixture {
 protected:
  absl::StatusOr<admin::v1::Screen> Set(
      const std::string& prohibited, const std::string& benign,
      admin::v1::ScreenAction action = admin::v1::SCREEN_ACTION_UNSPECIFIED,
      const std::string& name = "baseModels/tiny/screen") {
    admin::v1::SetScreenRequest request;
    request.set_name(name);
    request.set_action(action);
    request.set_prohibited(prohibited);
    request.set_benign(benign);
    admin::v1::Screen screen;
    const absl::Status status =
        FromGrpcStatus(screens_->SetScreen(ContextWith(kOperatorKey).get(), request, &screen));
    if (!status.ok()) return status;
    return screen;
  }

  absl::StatusOr<admin::v1::Screen> Get() {
    admin::v1::GetScreenRequest request;
    request.set_name("baseModels/tiny/screen");
    admin::v1::Screen screen;
    const absl::Status status =
        FromGrpcStatus(screens_->GetScreen(ContextWith(kOperatorKey).get(), request, &screen));
    if (!status.ok()) return status;
    return screen;
  }

  absl::Status Remove() {
    admin::v1::RemoveScreenRequest request;
    request.set_name("baseModels/tiny/screen");
    google::protobuf::Empty empty;
    return FromGrpcStatus(screens_->RemoveScreen(ContextWith(kOperatorKey).get(), request, &empty));
  }
};

TEST_F(ScreenServiceTest, IsSetShownReplacedAndRemovedAndItsRowsNeverReturned) {
  ASSERT_OK(ImportTiny());
  EXPECT_THAT(Get(), StatusIs(kNotFound, "SCREEN_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const auto screen, Set(Examples("bad"), Examples("good", 50)));
  EXPECT_EQ(screen.action(), admin::v1::SCREEN_ACTION_DROP);
  EXPECT_EQ(screen.prohibited().rows(), 40);
  EXPECT_EQ(screen.prohibited().digest(), DigestOf(Examples("bad")));
  EXPECT_EQ(screen.benign().rows(), 50);
  ASSERT_OK_AND_ASSIGN(const auto shown, Get());
  EXPECT_EQ(shown.SerializeAsString(), screen.SerializeAsString());
  EXPECT_THAT(EverythingStored(), HasSubstr("bad prompt 39"));
  EXPECT_THAT(shown.DebugString(), Not(HasSubstr("prompt 1")));

  ASSERT_OK_AND_ASSIGN(const auto other, Set(Examples("worse"), Examples("good", 50),
                                             admin::v1::SCREEN_ACTION_REFUSE));
  EXPECT_NE(other.digest(), screen.digest());
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("bad prompt")));
  ASSERT_OK(Remove());
  EXPECT_THAT(Get(), StatusIs(kNotFound, "SCREEN_NOT_FOUND"));
  EXPECT_THAT(Remove(), StatusIs(kNotFound, "SCREEN_NOT_FOUND"));
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("worse prompt")));
}

TEST_F(ScreenServiceTest, WhatIsWrongIsNamedAndNothingIsChanged) {
  ASSERT_OK(ImportTiny());
  const std::string bad = Examples("bad"), good = Examples("good");
  ASSERT_OK_AND_ASSIGN(const auto before, Set(bad, good));
  const auto bad_line = Set(bad, good + "{\"prompt\": 7}\n");
  EXPECT_THAT(bad_line, StatusIs(kInvalid, "SCREEN_ROWS_INVALID"));
  EXPECT_THAT(std::string(bad_line.status().message()), HasSubstr("benign line 41"));
  EXPECT_THAT(Set(Examples("bad", 39), good), StatusIs(kInvalid, "SCREEN_ROWS_INVALID"));
  EXPECT_THAT(Set(bad, ""), StatusIs(kInvalid, "SCREEN_ROWS_INVALID"));
  EXPECT_THAT(Set(std::string((1 << 20) + 1, ' '), good),
              StatusIs(kInvalid, "SCREEN_ROWS_TOO_LARGE"));
  EXPECT_THAT(Set(bad, good, static_cast<admin::v1::ScreenAction>(9)),
              StatusIs(kInvalid, "SCREEN_ACTION_UNKNOWN"));
  EXPECT_THAT(Set(bad, good, admin::v1::SCREEN_ACTION_DROP, "baseModels/tiny/gate"),
              StatusIs(kInvalid, "NAME_INVALID"));
  EXPECT_THAT(Set(bad, good, admin::v1::SCREEN_ACTION_DROP, "baseModels/none/screen"),
              StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_EQ(Get()->SerializeAsString(), before.SerializeAsString());
}

TEST_F(ScreenServiceTest, AWorkerGetsItAndWhatItFindsIsToldOnce) {
  MakeReady();
  ASSERT_OK(Set(Examples("bad"), Examples("good"), admin::v1::SCREEN_ACTION_REPORT));
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(UploadRows(40)));
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  const auto& given = taken.work().fine_tune().screen();
  EXPECT_EQ(given.action(), admin::v1::SCREEN_ACTION_REPORT);
  EXPECT_EQ(given.digest(), Get()->digest());
  EXPECT_GT(given.min_rows(), 0);
  EXPECT_EQ(given.prohibited().rows_accepted(), 40);
  ASSERT_OK_AND_ASSIGN(const std::string rows,
                       ReadBlob("w", taken.work().lease(), given.benign().blob()));
  EXPECT_EQ(rows, Examples("good"));

  worker::v1::SynchronizeRequest busy = WorkerRequest("w");
  *busy.mutable_busy()->mutable_lease() = taken.work().lease();
  auto& found = *busy.mutable_busy()->mutable_screening();
  found.set_rows(40);
  found.set_flagged_rows(2);
  found.add_lines(3);
  found.add_lines(17);
  found.set_action(v1::ScreeningReport::REPORTED);
  for (int i = 0; i < 2; ++i) ASSERT_OK(Sync(busy));
  ASSERT_OK_AND_ASSIGN(const auto seen, GetJob(job.name()));
  EXPECT_THAT(seen.screening().lines(), ElementsAre(3, 17));
  v1::ListFineTuningJobEventsRequest request;
  request.set_parent(job.name());
  v1::ListFineTuningJobEventsResponse listed;
  ASSERT_OK(FromGrpcStatus(
      jobs_->ListFineTuningJobEvents(ContextWith(kTenantKey).get(), request, &listed)));
  int events = 0;
  for (const auto& event : listed.events()) events += event.has_screening() ? 1 : 0;
  EXPECT_EQ(events, 1);
}

}  // namespace
}  // namespace ballast::server::testing
