// SPDX-License-Identifier: Apache-2.0
#include "server/core/gate_catalog.h"

#include <limits>
#include <string>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using admin::v1::Gate;
using admin::v1::GateLimits;

class GateCatalogTest : public testing::CoreFixture {};

TEST(GateLimitsTest, UnsetFieldsGetDefaults) {
  ASSERT_OK_AND_ASSIGN(const GateLimits limits, CompleteGateLimits({}));
  EXPECT_EQ(limits.max_rise(), 0.05);
  EXPECT_EQ(limits.max_over_refusal_rise(), 0.1);
  EXPECT_THAT(limits.deciding_scales(), ElementsAre(-1, 1, 2));
  EXPECT_THAT(limits.watched_scales(), ElementsAre(-4, 4, 8));
  EXPECT_EQ(limits.reply_tokens(), 48);
}

TEST(GateLimitsTest, WhatIsGivenStaysSortedAndOnce) {
  GateLimits asked;
  asked.set_max_rise(0);
  for (const double scale : {4.0, 1.0, 4.0}) asked.add_deciding_scales(scale);
  for (const double scale : {8.0, 4.0, -4.0, 0.5}) asked.add_watched_scales(scale);
  ASSERT_OK_AND_ASSIGN(const GateLimits limits, CompleteGateLimits(asked));
  EXPECT_EQ(limits.max_rise(), 0) << "0 is a limit, not \"not given\"";
  EXPECT_THAT(limits.deciding_scales(), ElementsAre(1, 4));
  EXPECT_THAT(limits.watched_scales(), ElementsAre(-4, 0.5, 8));
}

TEST(GateLimitsTest, OutOfRangeIsRefusedWithItsField) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  struct Case {
    void (*set)(GateLimits&);
    const char* field;
  };
  for (const Case& bad :
       {Case{[](GateLimits& l) { l.set_max_rise(1.1); }, "max_rise"},
        Case{[](GateLimits& l) { l.set_max_rise(-0.1); }, "max_rise"},
        Case{[](GateLimits& l) { l.set_max_rise(kNaN); }, "max_rise"},
        Case{[](GateLimits& l) { l.set_max_over_refusal_rise(2); }, "max_over_refusal_rise"},
        Case{[](GateLimits& l) { l.add_deciding_scales(2); }, "must have 1"},
        Case{[](GateLimits& l) {
               l.add_deciding_scales(1);
               l.add_deciding_scales(8.5);
             },
             "deciding_scales"},
        Case{[](GateLimits& l) { l.add_watched_scales(0); }, "watched_scales"},
        Case{[](GateLimits& l) { l.add_watched_scales(kNaN); }, "watched_scales"},
        Case{[](GateLimits& l) {
               for (int i = 1; i <= 11; ++i) l.add_watched_scales(i * 0.5);
             },
             "at most 10"},
        Case{[](GateLimits& l) { l.set_reply_tokens(7); }, "reply_tokens"},
        Case{[](GateLimits& l) { l.set_reply_tokens(257); }, "reply_tokens"}}) {
    GateLimits asked;
    bad.set(asked);
    const auto limits = CompleteGateLimits(asked);
    ASSERT_THAT(limits, StatusIs(kInvalid, "GATE_LIMITS_OUT_OF_RANGE")) << bad.field;
    EXPECT_THAT(std::string(limits.status().message()), HasSubstr(bad.field));
  }
}

TEST_F(GateCatalogTest, AGateIsSetShownReplacedAndRemoved) {
  EXPECT_THAT(gates_->Get("base"), StatusIs(absl::StatusCode::kNotFound, "GATE_NOT_FOUND"));
  const Gate gate = SetGate();
  EXPECT_EQ(gate.name(), "baseModels/base/gate");
  EXPECT_EQ(gate.prohibited_prompts().at("a"), 36);
  EXPECT_EQ(gate.look_alike_prompts(), 36);
  EXPECT_EQ(gate.limits().reply_tokens(), 48);
  EXPECT_THAT(Garbage(), IsEmpty()) << "the set in use is no garbage";
  ASSERT_OK_AND_ASSIGN(const Gate shown, gates_->Get("base"));
  EXPECT_EQ(shown.SerializeAsString(), gate.SerializeAsString());

  EXPECT_NE(SetGate().digest(), gate.digest());
  EXPECT_THAT(Garbage(), ElementsAre(HasSubstr("gates/base/")));
  ASSERT_OK(gates_->Remove("base"));
  EXPECT_EQ(Garbage().size(), 2u);
  EXPECT_THAT(gates_->Get("base"), StatusIs(absl::StatusCode::kNotFound, "GATE_NOT_FOUND"));
  EXPECT_THAT(gates_->Remove("base"), StatusIs(absl::StatusCode::kNotFound, "GATE_NOT_FOUND"));
}

TEST_F(GateCatalogTest, ABaseThatIsNotThereHasNone) {
  constexpr auto kNotFound = absl::StatusCode::kNotFound;
  EXPECT_THAT(gates_->Expect("none", GateSet(), {}, "gates/none/x"),
              StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_THAT(gates_->Set(now_, "none", GateSet(), {}, "gates/none/x", "", 0),
              StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_THAT(gates_->Get("none"), StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_THAT(gates_->Remove("none"), StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  EXPECT_THAT(Garbage(), IsEmpty());
}

TEST_F(GateCatalogTest, APromptThatMightNotFitIsRefused) {
  behaviour::BehaviourSet set = GateSet();
  GateLimits limits;
  limits.set_reply_tokens(20);
  // 2048 of context, 128 for the template.
  set.look_alikes[3] = std::string(1900, 'x');
  EXPECT_OK(gates_->Expect("base", set, limits, "gates/base/x"));
  set.look_alikes[3] += "x";
  EXPECT_THAT(gates_->Expect("base", set, limits, "gates/base/x"),
              StatusIs(kInvalid, "GATE_PROMPT_TOO_LONG"));
}

TEST_F(GateCatalogTest, AnAttemptIsMeasuredByTheGateThatItWasGiven) {
  CreateJob();
  const auto without = Idle("w1").work();
  EXPECT_FALSE(without.fine_tune().has_gate());
  const Gate first = SetGate();
  now_ += absl::Seconds(1);
  CreateJob();
  const auto work = Idle("w2").work();
  EXPECT_EQ(work.fine_tune().gate().digest(), first.digest());
  EXPECT_EQ(work.fine_tune().gate().limits().reply_tokens(), 48);
  const std::string blob = work.fine_tune().gate().blob();
  EXPECT_OK(plane_->CheckReadable(now_, "w2", work.lease(), blob));
  EXPECT_THAT(plane_->CheckReadable(now_, "w1", without.lease(), blob),
              StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
  // Another gate, and the answer is repeated as it was.
  const Gate second = SetGate();
  EXPECT_EQ(Idle("w2").work().fine_tune().gate().digest(), first.digest());
  const auto request = FinishedGate("w2", work.lease(), second.digest(), {});
  EXPECT_THAT(plane_->Synchronize(now_, request), StatusIs(kInvalid, "RESULT_INVALID"));
  Sync(FinishedGate("w2", work.lease(), first.digest(), {}));
  // The next attempt of a lost job is given the new one.
  CreateJob();
  Idle("w3");
  now_ += absl::Seconds(31);
  EXPECT_EQ(Idle("w4").work().fine_tune().gate().digest(), second.digest());
}

}  // namespace
}  // namespace ballast::server
