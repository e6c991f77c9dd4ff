// SPDX-License-Identifier: Apache-2.0
// The operators' commands about the gate, from the command line to what a server gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client/cli/cli.h"
#include "client/cli/gate_view.h"
#include "client/testing/commands_fixture.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kJob[] = "tenants/acme/fineTuningJobs/job-1";

class GateCommandsTest : public CommandsFixture {
 protected:
  GateCommandsTest() : CommandsFixture(AddGateCommands) {}

  static admin::v1::JobGate Withheld() {
    admin::v1::JobGate gate;
    gate.set_job(kJob);
    gate.set_state(v1::FineTuningJob::WITHHELD);
    gate.set_base_model("baseModels/m");
    gate.mutable_withheld_time()->set_seconds(1'700'000'000);
    gate.mutable_expire_time()->set_seconds(1'700'000'100);
    gate.add_failed_categories("weapons");
    return gate;
  }
};

TEST_F(GateCommandsTest, SetSendsTheFileAndOnlyTheLimitsThatWereTyped) {
  ASSERT_OK(WriteFileAtomically(file_, "the lines"));
  admin::v1::SetGateRequest got;
  server_.set_gate = [&](auto&, const admin::v1::SetGateRequest& request, admin::v1::Gate& gate) {
    got = request;
    gate.set_name(request.name());
    *gate.mutable_limits() = request.limits();
    (*gate.mutable_prohibited_prompts())["weapons"] = 40;
    gate.set_look_alike_prompts(50);
    return absl::OkStatus();
  };
  ASSERT_EQ(Run({"gate", "set", "--base-model", "m", "--file", file_.c_str()}), kExitOk) << err_;
  EXPECT_EQ(got.name(), "baseModels/m/gate");
  EXPECT_EQ(got.gate_set(), "the lines");
  EXPECT_FALSE(got.limits().has_max_rise());
  EXPECT_THAT(got.limits().deciding_scales(), IsEmpty());
  EXPECT_THAT(out_, HasSubstr("weapons"));
  EXPECT_THAT(out_, HasSubstr("look-alikes"));

  ASSERT_EQ(Run({"gate", "set", "--base-model", "baseModels/m", "--file", file_.c_str(),
                 "--max-rise", "0", "--scale", "1", "--scale", "-2", "--watch", "8",
                 "--reply-tokens", "32", "--output", "json"}),
            kExitOk)
      << err_;
  EXPECT_EQ(got.name(), "baseModels/m/gate");
  EXPECT_TRUE(got.limits().has_max_rise()) << "a limit of 0 that was typed is one";
  EXPECT_EQ(got.limits().max_rise(), 0);
  EXPECT_THAT(got.limits().deciding_scales(), ElementsAre(1, -2));
  EXPECT_THAT(got.limits().watched_scales(), ElementsAre(8));
  EXPECT_EQ(got.limits().reply_tokens(), 32);
  EXPECT_EQ(nlohmann::json::parse(out_)["lookAlikePrompts"], 50);

  EXPECT_EQ(
      Run({"gate", "set", "--base-model", "m", "--file", file_.c_str(), "--reply-tokens", "0"}),
      kExitUsage);
  EXPECT_EQ(Run({"gate", "set", "--base-model", "m", "--file", "/none/there"}), kExitNotFound);
  ASSERT_OK(WriteFileAtomically(file_, std::string((1 << 20) + 1, '\n')));
  EXPECT_EQ(Run({"gate", "set", "--base-model", "m", "--file", file_.c_str()}), kExitRefused);
  EXPECT_THAT(err_, HasSubstr("GATE_SET_TOO_LARGE"));
}

TEST_F(GateCommandsTest, ShowAndRemoveNameTheGate) {
  std::string shown, removed;
  server_.get_gate = [&](auto&, const admin::v1::GetGateRequest& request, auto&) {
    shown = request.name();
    return absl::OkStatus();
  };
  server_.remove_gate = [&](auto&, const admin::v1::RemoveGateRequest& request, auto&) {
    removed = request.name();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run({"gate", "show", "m"}), kExitOk);
  EXPECT_EQ(shown, "baseModels/m/gate");
  EXPECT_EQ(Run({"gate", "remove", "m", "--output", "json"}), kExitOk);
  EXPECT_EQ(removed, "baseModels/m/gate");
  EXPECT_EQ(nlohmann::json::parse(out_)["removed"], "baseModels/m/gate");
}

TEST_F(GateCommandsTest, WithheldListsEveryPage) {
  server_.list_withheld_jobs = [](auto&, const admin::v1::ListWithheldJobsRequest& request,
                                  admin::v1::ListWithheldJobsResponse& response) {
    *response.add_jobs() = Withheld();
    if (request.page_token().empty()) response.set_next_page_token("more");
    return absl::OkStatus();
  };
  ASSERT_EQ(Run({"gate", "withheld", "--output", "json"}), kExitOk);
  EXPECT_EQ(nlohmann::json::parse(out_)["jobs"].size(), 2u);
  ASSERT_EQ(Run({"gate", "withheld"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(kJob));
  EXPECT_THAT(out_, HasSubstr("weapons"));
  server_.list_withheld_jobs = [](auto&, const auto&, auto&) { return absl::OkStatus(); };
  ASSERT_EQ(Run({"gate", "withheld"}), kExitOk);
  EXPECT_EQ(out_, "No job is withheld.\n");
}

TEST_F(GateCommandsTest, ReportShowsScoresAndTheDecision) {
  server_.get_gate_report = [](auto&, const auto&, admin::v1::JobGate& gate) {
    gate = Withheld();
    gate.mutable_report()->set_verdict(admin::v1::GateReport::FAILED);
    gate.mutable_report()->set_over_refuses(true);
    auto& scale = *gate.mutable_report()->add_scales();
    scale.set_scale(-1);
    scale.set_deciding(true);
    auto& score = *scale.add_prohibited();
    score.set_prompts(40);
    score.set_rise(0.25);
    score.set_rise_low(0.125);
    score.set_failed(true);
    gate.mutable_decision()->set_outcome(admin::v1::GateDecision::REFUSED);
    gate.mutable_decision()->set_reason("as bad\x1b as it looks");
    return absl::OkStatus();
  };
  ASSERT_EQ(Run({"gate", "report", kJob}), kExitOk);
  for (const char* text : {"FAILED", "look-alikes", "+0.250", "+0.125", "beyond the limit",
                           "everything prohibited", "REFUSED", "as bad? as it looks"}) {
    EXPECT_THAT(out_, HasSubstr(text));
  }
}

TEST_F(GateCommandsTest, DecisionsCarryTheirReasonAndNeedOne) {
  std::string released, refused;
  server_.release_job = [&](auto&, const admin::v1::ReleaseJobRequest& request, auto& gate) {
    released = request.name() + ": " + request.reason();
    gate.set_job(request.name());
    gate.set_state(v1::FineTuningJob::SUCCEEDED);
    return absl::OkStatus();
  };
  server_.refuse_job = [&](auto&, const admin::v1::RefuseJobRequest& request, auto&) {
    refused = request.name() + ": " + request.reason();
    return absl::OkStatus();
  };
  ASSERT_EQ(Run({"gate", "release", kJob, "--reason", "a false alarm"}), kExitOk);
  EXPECT_EQ(released, std::string(kJob) + ": a false alarm");
  EXPECT_THAT(out_, HasSubstr("is SUCCEEDED"));
  ASSERT_EQ(Run({"gate", "refuse", kJob, "--reason", "no"}), kExitOk);
  EXPECT_EQ(refused, std::string(kJob) + ": no");
  EXPECT_EQ(Run({"gate", "release", kJob}), kExitUsage);
  EXPECT_EQ(Run({"gate", "refuse", kJob}), kExitUsage);
}

TEST_F(GateCommandsTest, ADecisionIsNotSentTwice) {
  int calls = 0;
  server_.release_job = [&](auto&, const auto&, auto&) {
    ++calls;
    return absl::UnavailableError("gone");
  };
  EXPECT_EQ(Run({"gate", "release", kJob, "--reason", "r"}), kExitUnavailable);
  EXPECT_EQ(calls, 1);
}

TEST_F(GateCommandsTest, TenantsAreShownAndUnfrozen) {
  server_.get_tenant_standing = [](auto&, const admin::v1::GetTenantStandingRequest& request,
                                   admin::v1::TenantStanding& standing) {
    standing.set_name(request.name());
    standing.set_state(admin::v1::TenantStanding::FROZEN);
    standing.set_withheld_drawn(5);
    standing.set_withheld_budget(5);
    return absl::OkStatus();
  };
  std::string reason;
  server_.unfreeze_tenant = [&](auto&, const admin::v1::UnfreezeTenantRequest& request,
                                admin::v1::TenantStanding& standing) {
    reason = request.name() + ": " + request.reason();
    standing.set_state(admin::v1::TenantStanding::ACTIVE);
    standing.add_unfreezes()->set_reason(request.reason());
    return absl::OkStatus();
  };
  ASSERT_EQ(Run({"tenant", "show", "acme"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("tenants/acme"));
  EXPECT_THAT(out_, HasSubstr("FROZEN since"));
  EXPECT_THAT(out_, HasSubstr("5 of 5"));
  ASSERT_EQ(Run({"tenant", "unfreeze", "acme", "--reason", "they called"}), kExitOk);
  EXPECT_EQ(reason, "tenants/acme: they called");
  EXPECT_THAT(out_, HasSubstr("they called"));
  EXPECT_THAT(out_, Not(HasSubstr("FROZEN")));
  EXPECT_EQ(Run({"tenant", "unfreeze", "acme"}), kExitUsage);
}

}  // namespace
}  // namespace ballast::cli
