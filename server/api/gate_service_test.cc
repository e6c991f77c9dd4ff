// SPDX-License-Identifier: Apache-2.0
// The gate over the wire: who sets it, what a withheld job shows to whom, and what is decided.
#include "server/api/gate_service.h"

#include <string>
#include <vector>

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
using v1::FineTuningJob;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class GateServiceTest : public ServerFixture {
 protected:
  GateServiceTest() {
    options_.withheld_budget = 2;
    options_.withheld_expiry = absl::Hours(1);
  }

  absl::StatusOr<admin::v1::Gate> GetGate() {
    admin::v1::GetGateRequest request;
    request.set_name("baseModels/tiny/gate");
    admin::v1::Gate gate;
    const absl::Status status =
        FromGrpcStatus(gates_->GetGate(ContextWith(kOperatorKey).get(), request, &gate));
    if (!status.ok()) return status;
    return gate;
  }

  absl::Status RemoveGate() {
    admin::v1::RemoveGateRequest request;
    request.set_name("baseModels/tiny/gate");
    google::protobuf::Empty empty;
    return FromGrpcStatus(gates_->RemoveGate(ContextWith(kOperatorKey).get(), request, &empty));
  }

  absl::StatusOr<admin::v1::JobGate> Release(const std::string& name, const std::string& reason) {
    admin::v1::ReleaseJobRequest request;
    request.set_name(name);
    request.set_reason(reason);
    admin::v1::JobGate gate;
    const absl::Status status =
        FromGrpcStatus(gates_->ReleaseJob(ContextWith(kOperatorKey).get(), request, &gate));
    if (!status.ok()) return status;
    return gate;
  }

  absl::StatusOr<admin::v1::JobGate> Refuse(const std::string& name, const std::string& reason) {
    admin::v1::RefuseJobRequest request;
    request.set_name(name);
    request.set_reason(reason);
    admin::v1::JobGate gate;
    const absl::Status status =
        FromGrpcStatus(gates_->RefuseJob(ContextWith(kOperatorKey).get(), request, &gate));
    if (!status.ok()) return status;
    return gate;
  }

  absl::StatusOr<admin::v1::JobGate> Report(const std::string& name) {
    admin::v1::GetGateReportRequest request;
    request.set_name(name);
    admin::v1::JobGate gate;
    const absl::Status status =
        FromGrpcStatus(gates_->GetGateReport(ContextWith(kOperatorKey).get(), request, &gate));
    if (!status.ok()) return status;
    return gate;
  }

  admin::v1::ListWithheldJobsResponse Withheld() {
    admin::v1::ListWithheldJobsResponse list;
    EXPECT_TRUE(gates_->ListWithheldJobs(ContextWith(kOperatorKey).get(), {}, &list).ok());
    return list;
  }

  absl::StatusOr<admin::v1::TenantStanding> Unfreeze(const std::string& reason) {
    admin::v1::UnfreezeTenantRequest request;
    request.set_name("tenants/acme");
    request.set_reason(reason);
    admin::v1::TenantStanding standing;
    const absl::Status status =
        FromGrpcStatus(gates_->UnfreezeTenant(ContextWith(kOperatorKey).get(), request, &standing));
    if (!status.ok()) return status;
    return standing;
  }

  admin::v1::TenantStanding Standing() {
    admin::v1::GetTenantStandingRequest request;
    request.set_name("tenants/acme");
    admin::v1::TenantStanding standing;
    EXPECT_TRUE(
        gates_->GetTenantStanding(ContextWith(kOperatorKey).get(), request, &standing).ok());
    return standing;
  }

  // The states that a watch from the beginning tells of; it must end by itself.
  std::vector<FineTuningJob::State> Watch(const std::string& name) {
    v1::WatchFineTuningJobRequest request;
    request.set_name(name);
    const auto context = ContextWith(kTenantKey);
    const auto reader = jobs_->WatchFineTuningJob(context.get(), request);
    std::vector<FineTuningJob::State> states;
    v1::WatchFineTuningJobResponse response;
    while (reader->Read(&response)) {
      if (response.event().has_state_changed()) {
        states.push_back(response.event().state_changed().state());
      }
    }
    EXPECT_OK(FromGrpcStatus(reader->Finish()));
    return states;
  }

  // A job of "acme" under the gate that is set, which its delta passes or not.
  std::string RunJob(bool passed) {
    const auto job = CreateJob(UploadRows(40));
    EXPECT_OK(job);
    const auto taken = Idle("w");
    EXPECT_OK(taken);
    EXPECT_EQ(taken->work().lease().resource(), job->name());
    EXPECT_OK(FinishGate("w", taken->work(), passed));
    return job->name();
  }
};

TEST_F(GateServiceTest, AGateIsSetShownAndRemovedAndItsPromptsAreNeverReturned) {
  ASSERT_OK(ImportTiny());
  EXPECT_THAT(GetGate(), StatusIs(kNotFound, "GATE_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const auto gate, SetGate());
  EXPECT_EQ(gate.digest(), DigestOf(GateSet()));
  EXPECT_EQ(gate.size_bytes(), static_cast<int64_t>(GateSet().size()));
  EXPECT_EQ(gate.prohibited_prompts().at("a"), 36);
  ASSERT_OK_AND_ASSIGN(const auto shown, GetGate());
  EXPECT_EQ(shown.SerializeAsString(), gate.SerializeAsString());
  EXPECT_THAT(shown.DebugString(), Not(HasSubstr("gate prompt")));
  EXPECT_THAT(EverythingStored(), HasSubstr("gate prompt 35"));
  // It survives a restart; what replaces it or takes it away deletes its prompts.
  Restart();
  ASSERT_OK(GetGate());
  ASSERT_OK(SetGate(GateSet() + R"({"refusal_phrase": "not here"})"));
  server_->SettleForTest();
  ASSERT_OK(RemoveGate());
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("gate prompt 35")));
  EXPECT_THAT(GetGate(), StatusIs(kNotFound, "GATE_NOT_FOUND"));
  EXPECT_THAT(RemoveGate(), StatusIs(kNotFound, "GATE_NOT_FOUND"));
}

TEST_F(GateServiceTest, ABadGateChangesNothing) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto before, SetGate());
  const auto bad = SetGate(GateSet() + "nonsense\n");
  EXPECT_THAT(bad, StatusIs(kInvalid, "GATE_SET_INVALID"));
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("line 73"));
  EXPECT_THAT(SetGate(""), StatusIs(kInvalid, "GATE_SET_INVALID"));
  EXPECT_THAT(SetGate(std::string((1 << 20) + 1, '\n')), StatusIs(kInvalid, "GATE_SET_TOO_LARGE"));
  EXPECT_THAT(SetGate(GateSet() + R"({"look_alike": ")" + std::string(2000, 'x') + "\"}"),
              StatusIs(kInvalid, "GATE_PROMPT_TOO_LONG"));
  admin::v1::SetGateRequest request;
  admin::v1::Gate gate;
  request.set_name("baseModels/tiny/gate");
  request.set_gate_set(GateSet());
  request.mutable_limits()->set_max_rise(2);
  EXPECT_THAT(FromGrpcStatus(gates_->SetGate(ContextWith(kOperatorKey).get(), request, &gate)),
              StatusIs(kInvalid, "GATE_LIMITS_OUT_OF_RANGE"));
  request.clear_limits();
  request.set_name("baseModels/tiny");
  EXPECT_THAT(FromGrpcStatus(gates_->SetGate(ContextWith(kOperatorKey).get(), request, &gate)),
              StatusIs(kInvalid, "NAME_INVALID"));
  request.set_name("baseModels/none/gate");
  EXPECT_THAT(FromGrpcStatus(gates_->SetGate(ContextWith(kOperatorKey).get(), request, &gate)),
              StatusIs(kNotFound, "BASE_MODEL_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const auto after, GetGate());
  EXPECT_EQ(after.digest(), before.digest());
}

TEST_F(GateServiceTest, AWorkerReadsTheGateOfItsWork) {
  MakeReady();
  ASSERT_OK(SetGate());
  ASSERT_OK(CreateJob(UploadRows(40)));
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  const auto& gate = taken.work().fine_tune().gate();
  EXPECT_EQ(gate.digest(), DigestOf(GateSet()));
  ASSERT_OK_AND_ASSIGN(const std::string set, ReadBlob("w", taken.work().lease(), gate.blob()));
  EXPECT_EQ(set, GateSet());
  // A worker that knows no gates cannot deliver past one.
  EXPECT_THAT(FinishDelta("w", taken.work().lease()), StatusIs(kInvalid, "RESULT_INVALID"));
}

TEST_F(GateServiceTest, AWithheldDeltaIsReleasedAndThenRead) {
  MakeReady();
  ASSERT_OK(SetGate());
  const std::string passed = RunJob(true);
  const std::string name = RunJob(false);
  ASSERT_OK_AND_ASSIGN(const FineTuningJob job, GetJob(name));
  EXPECT_EQ(job.state(), FineTuningJob::WITHHELD);
  EXPECT_THAT(job.gate_verdict().categories(), ElementsAre("a"));
  EXPECT_THAT(job.DebugString(), Not(HasSubstr("0.8125")));
  EXPECT_THAT(ReadDelta(name + "/delta", "manifest.json"), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  EXPECT_THAT(Cancel(name), StatusIs(kPrecondition, "JOB_WITHHELD"));
  // A watch ends there, and tells the rest once there is more.
  const std::vector<FineTuningJob::State> until_then = {
      FineTuningJob::QUEUED, FineTuningJob::RUNNING, FineTuningJob::WITHHELD};
  EXPECT_EQ(Watch(name), until_then);
  // Not lost over a restart and not with the janitor's work.
  Restart();
  server_->SettleForTest();
  const auto list = Withheld();
  ASSERT_EQ(list.jobs_size(), 1);
  EXPECT_EQ(list.jobs(0).job(), name);
  ASSERT_OK_AND_ASSIGN(const auto report, Report(name));
  EXPECT_EQ(report.report().scales(0).prohibited(0).rise(), 0.8125);
  ASSERT_OK_AND_ASSIGN(const auto passed_report, Report(passed));
  EXPECT_EQ(passed_report.report().verdict(), admin::v1::GateReport::PASSED);

  EXPECT_THAT(Release(name, ""), StatusIs(kInvalid, "REASON_REQUIRED"));
  ASSERT_OK_AND_ASSIGN(const auto released, Release(name, "a false alarm"));
  EXPECT_EQ(released.state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(released.decision().reason(), "a false alarm");
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const std::string manifest, ReadDelta(name + "/delta", "manifest.json"));
  EXPECT_EQ(manifest, kManifestBytes);
  EXPECT_THAT(ReadDelta(name + "/delta", "manifest.json", 0, 0, kOtherKey),
              StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  EXPECT_EQ(Watch(name).back(), FineTuningJob::SUCCEEDED);
  EXPECT_THAT(Release(name, "again"), StatusIs(kPrecondition, "JOB_NOT_WITHHELD"));
  EXPECT_EQ(Withheld().jobs_size(), 0);
}

TEST_F(GateServiceTest, ARefusedDeltaIsDeletedAndAnUndecidedOneExpires) {
  MakeReady();
  ASSERT_OK(SetGate());
  const std::string refused = RunJob(false);
  ASSERT_OK(Refuse(refused, "it is what it seems"));
  ASSERT_OK_AND_ASSIGN(const FineTuningJob job, GetJob(refused));
  EXPECT_EQ(job.error().reason(), "GATE_REFUSED");
  const std::string expired = RunJob(false);
  EXPECT_THAT(EverythingStored(), HasSubstr(kAdapterBytes));
  clock_.Advance(absl::Hours(1) + absl::Seconds(1));
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const FineTuningJob late, GetJob(expired));
  EXPECT_EQ(late.state(), FineTuningJob::FAILED);
  EXPECT_EQ(late.error().reason(), "GATE_EXPIRED");
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr(kAdapterBytes)));
  EXPECT_THAT(Report("tenants/acme/fineTuningJobs/job-none"), StatusIs(kNotFound, "JOB_NOT_FOUND"));
}

TEST_F(GateServiceTest, ATenantIsFrozenAndUnfrozen) {
  MakeReady();
  ASSERT_OK(SetGate());
  RunJob(false);
  EXPECT_EQ(Standing().state(), admin::v1::TenantStanding::ACTIVE);
  EXPECT_EQ(Standing().withheld_budget(), 2);
  EXPECT_THAT(Unfreeze("too early"), StatusIs(kPrecondition, "TENANT_NOT_FROZEN"));
  RunJob(false);
  EXPECT_EQ(Standing().state(), admin::v1::TenantStanding::FROZEN);
  const std::string dataset = UploadRows(40);
  const auto refused = CreateJob(dataset);
  EXPECT_THAT(refused, StatusIs(kPrecondition, "TENANT_FROZEN"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("ask the operator"));
  EXPECT_OK(CreateJob(UploadRows(40, kOtherKey, "other"), kOtherKey, "other"));
  Restart();
  EXPECT_THAT(CreateJob(dataset), StatusIs(kPrecondition, "TENANT_FROZEN"));
  EXPECT_THAT(Unfreeze(" "), StatusIs(kInvalid, "REASON_REQUIRED"));
  ASSERT_OK_AND_ASSIGN(const auto standing, Unfreeze("they called"));
  EXPECT_EQ(standing.unfreezes(0).reason(), "they called");
  EXPECT_OK(CreateJob(dataset));
}

}  // namespace
}  // namespace ballast::server::testing
