// SPDX-License-Identifier: Apache-2.0
// Withheld deltas from the worker's report to the operator's decision, and what they cost a tenant.
#include "server/core/withheld_jobs.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/records.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using admin::v1::GateDecision;
using admin::v1::GateReport;
using admin::v1::JobGate;
using admin::v1::TenantStanding;
using ::ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class WithheldJobsTest : public testing::CoreFixture {
 protected:
  TenantStanding Standing(const std::string& tenant = "acme") {
    const auto standing = standings_->Get(tenant);
    EXPECT_OK(standing);
    return standing.value_or(TenantStanding());
  }
  absl::Status Submit(const std::string& tenant = "acme") {
    return jobs_->Create(now_, tenant, JobRequest(tenant)).status();
  }
  absl::StatusOr<JobRecord> Delta(const std::string& name) {
    return jobs_->GetDelta("acme", Parse(name));
  }
};

TEST_F(WithheldJobsTest, ADeltaThatPassesIsDeliveredAndItsReportKept) {
  const auto gate = SetGate();
  const std::string name = CreateJob();
  Sync(FinishedGate("w1", Idle("w1").work().lease(), gate.digest(), {}));
  EXPECT_EQ(Job(name).state(), FineTuningJob::SUCCEEDED);
  EXPECT_FALSE(Job(name).has_gate_verdict());
  EXPECT_OK(Delta(name));
  ASSERT_OK_AND_ASSIGN(const JobGate report, withheld_->Get(Parse(name)));
  EXPECT_EQ(report.report().verdict(), GateReport::PASSED);
  EXPECT_FALSE(report.has_withheld_time());
  EXPECT_EQ(Standing().withheld_total(), 0);
  EXPECT_THAT(withheld_->Release(now_, "op", Parse(name), "why not"),
              StatusIs(kPrecondition, "JOB_NOT_WITHHELD"));
}

TEST_F(WithheldJobsTest, AWithheldDeltaIsNotReadAndItsOwnerSeesTheCoarseVerdictOnly) {
  SetGate();
  const std::string name = CreateWithheldJob();
  const FineTuningJob job = Job(name);
  EXPECT_THAT(job.gate_verdict().categories(), ElementsAre("a"));
  EXPECT_THAT(job.delta(), IsEmpty());
  EXPECT_THAT(job.manifest_digest(), IsEmpty());
  EXPECT_FALSE(job.has_end_time()) << "it is not final";
  EXPECT_THAT(Delta(name), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  const auto events = Events(name);
  EXPECT_EQ(events.back().state_changed().state(), FineTuningJob::WITHHELD);
  EXPECT_THAT(events.back().state_changed().gate_verdict().categories(), ElementsAre("a"));
  std::string told = job.DebugString();
  for (const auto& event : events) told += event.DebugString();
  EXPECT_THAT(told, Not(HasSubstr("0.8125"))) << "a score of the report";
  // The files of the delta stay, everything else of the attempts goes.
  EXPECT_THAT(Garbage(), Contains(HasSubstr("attempts/1/checkpoints")));
  EXPECT_THAT(Garbage(), Not(Contains("jobs/acme/" + Parse(name).id)));
  EXPECT_THAT(jobs_->Cancel(now_, "acme", Parse(name)), StatusIs(kPrecondition, "JOB_WITHHELD"));
  // The worker is free.
  EXPECT_TRUE(Idle("maker").has_idle());
}

TEST_F(WithheldJobsTest, AReleaseDeliversWithItsReason) {
  SetGate();
  const std::string name = CreateWithheldJob();
  EXPECT_EQ(Standing().withheld_drawn(), 1);
  EXPECT_THAT(withheld_->Release(now_, "op", Parse(name), "  "),
              StatusIs(kInvalid, "REASON_REQUIRED"));
  EXPECT_THAT(withheld_->Release(now_, "op", Parse(name), std::string(1001, 'x')),
              StatusIs(kInvalid, "REASON_TOO_LONG"));
  now_ += absl::Hours(1);
  ASSERT_OK_AND_ASSIGN(const JobGate gate,
                       withheld_->Release(now_, "op", Parse(name), "a false alarm"));
  EXPECT_EQ(gate.state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(gate.decision().outcome(), GateDecision::RELEASED);
  EXPECT_EQ(gate.decision().reason(), "a false alarm");
  EXPECT_EQ(gate.decision().decided_by(), "op");
  EXPECT_EQ(FromTimestamp(gate.decision().time()), now_);
  EXPECT_FALSE(gate.has_expire_time());
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.state(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(job.manifest_digest(), DigestOf("manifest.json"));
  EXPECT_THAT(job.delta(), HasSubstr("/delta"));
  EXPECT_TRUE(job.has_gate_verdict()) << "the verdict stays";
  ASSERT_OK_AND_ASSIGN(const JobRecord record, Delta(name));
  EXPECT_EQ(record.delta_files_size(), 2);
  EXPECT_EQ(Standing().withheld_drawn(), 0) << "a false alarm is given back";
  EXPECT_EQ(Standing().withheld_total(), 1);
  EXPECT_THAT(withheld_->Refuse(now_, "op", Parse(name), "too late"),
              StatusIs(kPrecondition, "JOB_NOT_WITHHELD"));
  // The operator's words are not for the tenant.
  std::string told = job.DebugString();
  for (const auto& event : Events(name)) told += event.DebugString();
  EXPECT_THAT(told, Not(HasSubstr("false alarm")));
}

TEST_F(WithheldJobsTest, ARefusalFailsTheJobAndDeletesItsFiles) {
  SetGate();
  const std::string name = CreateWithheldJob();
  ASSERT_OK_AND_ASSIGN(const JobGate gate,
                       withheld_->Refuse(now_, "op", Parse(name), "it is what it seems"));
  EXPECT_EQ(gate.decision().outcome(), GateDecision::REFUSED);
  const FineTuningJob job = Job(name);
  EXPECT_EQ(job.state(), FineTuningJob::FAILED);
  EXPECT_EQ(job.error().kind(), v1::JobError::REFUSED);
  EXPECT_EQ(job.error().reason(), "GATE_REFUSED");
  EXPECT_THAT(job.error().message(), Not(HasSubstr("it is what")));
  EXPECT_TRUE(job.has_end_time());
  EXPECT_THAT(Delta(name), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  EXPECT_THAT(Garbage(), Contains("jobs/acme/" + Parse(name).id));
  EXPECT_EQ(Standing().withheld_drawn(), 1);
  ASSERT_OK_AND_ASSIGN(const JobGate kept, withheld_->Get(Parse(name)));
  EXPECT_EQ(kept.decision().reason(), "it is what it seems");
  EXPECT_EQ(kept.report().scales_size(), 1);
}

TEST_F(WithheldJobsTest, ADeltaOfAVectorThatWasRejectedIsNotReleased) {
  SetGate();
  const std::string name = CreateWithheldJob();
  ASSERT_OK(certification_->Certify(now_, "vec-1", BadResult("vec-1"), /*validate_only=*/false));
  ASSERT_EQ(Vector("vec-1").state(), admin::v1::Vector::REJECTED);
  const auto released = withheld_->Release(now_, "op", Parse(name), "a false alarm");
  EXPECT_THAT(released, StatusIs(kPrecondition, "VECTOR_REJECTED"));
  EXPECT_THAT(std::string(released.status().message()), HasSubstr("vectors/vec-1"));
  // Nothing of the attempt is kept.
  EXPECT_EQ(Job(name).state(), FineTuningJob::WITHHELD);
  EXPECT_THAT(Delta(name), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  EXPECT_EQ(Standing().withheld_drawn(), 1);
  ASSERT_OK_AND_ASSIGN(const JobGate gate, withheld_->Get(Parse(name)));
  EXPECT_FALSE(gate.has_decision());
  ASSERT_OK(withheld_->Refuse(now_, "op", Parse(name), "its vector protects nothing"));
  EXPECT_EQ(Job(name).error().reason(), "GATE_REFUSED");
}

TEST_F(WithheldJobsTest, ADeltaOfARetiredVectorIsReleased) {
  SetGate();
  const std::string name = CreateWithheldJob();
  ASSERT_OK(vectors_->Retire("vec-1"));
  ASSERT_OK(withheld_->Release(now_, "op", Parse(name), "a false alarm"));
  EXPECT_OK(Delta(name));
}

TEST_F(WithheldJobsTest, NobodysDecisionIsARefusalAfterTheExpiry) {
  SetGate();
  const std::string name = CreateWithheldJob();
  ASSERT_OK_AND_ASSIGN(const JobGate waiting, withheld_->Get(Parse(name)));
  EXPECT_EQ(FromTimestamp(waiting.expire_time()), now_ + kWithheldExpiry);
  now_ += kWithheldExpiry - absl::Seconds(1);
  ASSERT_OK(withheld_->Enter(now_));
  EXPECT_EQ(Job(name).state(), FineTuningJob::WITHHELD);
  now_ += absl::Seconds(1);
  ASSERT_OK(withheld_->Enter(now_));
  EXPECT_EQ(Job(name).state(), FineTuningJob::FAILED);
  EXPECT_EQ(Job(name).error().reason(), "GATE_EXPIRED");
  ASSERT_OK_AND_ASSIGN(const JobGate gate, withheld_->Get(Parse(name)));
  EXPECT_EQ(gate.decision().outcome(), GateDecision::EXPIRED);
  EXPECT_THAT(gate.decision().reason(), IsEmpty());
}

TEST_F(WithheldJobsTest, ACancelThatComesTooLateHidesNoVerdict) {
  const auto gate = SetGate();
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  EXPECT_EQ(Cancel(name).state(), FineTuningJob::CANCELLING);
  Sync(FinishedGate("w1", lease, gate.digest(), {"a"}));
  EXPECT_EQ(Job(name).state(), FineTuningJob::WITHHELD);
  EXPECT_EQ(Standing().withheld_drawn(), 1);
}

TEST_F(WithheldJobsTest, AResultMustSayWhatTheGateFound) {
  const std::string ungated = CreateJob();
  const auto free = Idle("w1").work().lease();
  EXPECT_THAT(plane_->Synchronize(now_, FinishedGate("w1", free, "sha256:x", {})),
              StatusIs(kInvalid, "RESULT_INVALID"));
  Sync(FinishedDelta("w1", free));
  EXPECT_EQ(Job(ungated).state(), FineTuningJob::SUCCEEDED);
  EXPECT_THAT(withheld_->Get(Parse(ungated)), StatusIs(kNotFound, "GATE_REPORT_NOT_FOUND"));

  const auto gate = SetGate();
  now_ += absl::Seconds(1);
  const std::string name = CreateJob();
  const auto lease = Idle("w1").work().lease();
  const auto refused = [&](const SynchronizeRequest& request) {
    EXPECT_THAT(plane_->Synchronize(now_, request), StatusIs(kInvalid, "RESULT_INVALID"));
    EXPECT_EQ(Job(name).state(), FineTuningJob::RUNNING) << "and nothing is kept";
    EXPECT_EQ(Standing().withheld_total(), 0);
  };
  refused(FinishedDelta("w1", lease));
  refused(FinishedGate("w1", lease, "sha256:another", {}));
  SynchronizeRequest request = FinishedGate("w1", lease, gate.digest(), {});
  GateReport& report = *request.mutable_finished()->mutable_delta()->mutable_gate();
  report.clear_verdict();
  refused(request);
  report.set_verdict(GateReport::PASSED);
  report.add_failed_categories("a");
  refused(request);
  report.set_verdict(GateReport::FAILED);
  report.set_failed_categories(0, std::string(41, 'x'));
  refused(request);
  report.clear_failed_categories();
  for (int i = 0; i < 33; ++i) report.add_failed_categories("a");
  refused(request);
  report.clear_failed_categories();
  for (int i = 0; i < 40'000; ++i) report.add_scales()->set_scale(i + 1);
  refused(request);
  report.clear_scales();
  Sync(request);
  EXPECT_EQ(Job(name).state(), FineTuningJob::WITHHELD);
  // And once more: nothing is counted twice.
  Sync(request);
  EXPECT_EQ(Standing().withheld_total(), 1);
}

TEST_F(WithheldJobsTest, TheBudgetFreezesATenantAndNoOther) {
  SetGate();
  const auto queued_before = [&] {
    now_ += absl::Seconds(1);
    return CreateJob();
  };
  for (int i = 1; i < kWithheldBudget; ++i) {
    CreateWithheldJob();
    EXPECT_EQ(Standing().state(), TenantStanding::ACTIVE);
    EXPECT_EQ(Standing().withheld_drawn(), i);
  }
  const v1::CreateFineTuningJobRequest repeat = [&] {
    v1::CreateFineTuningJobRequest request = JobRequest("acme");
    request.set_request_id("r-1");
    return request;
  }();
  now_ += absl::Seconds(1);
  ASSERT_OK_AND_ASSIGN(const FineTuningJob first, jobs_->Create(now_, "acme", repeat));
  const auto last = Idle("w1").work();
  ASSERT_EQ(last.lease().resource(), first.name());
  const std::string waiting = queued_before();
  SynchronizeRequest request =
      FinishedGate("w1", last.lease(), last.fine_tune().gate().digest(), {"a"});
  // Nothing is handed out with the answer: what is queued would tell more.
  EXPECT_TRUE(Sync(request).has_idle());
  EXPECT_EQ(Standing().state(), TenantStanding::FROZEN);
  EXPECT_EQ(Standing().withheld_budget(), kWithheldBudget);
  EXPECT_EQ(FromTimestamp(Standing().freeze_time()), now_);
  EXPECT_THAT(Submit(), StatusIs(kPrecondition, "TENANT_FROZEN"));
  v1::CreateFineTuningJobRequest only = JobRequest("acme");
  only.set_validate_only(true);
  EXPECT_THAT(jobs_->Create(now_, "acme", only), StatusIs(kPrecondition, "TENANT_FROZEN"));
  EXPECT_OK(jobs_->Create(now_, "acme", repeat)) << "what was created once is still found";
  EXPECT_OK(Submit("other"));
  EXPECT_EQ(Standing("other").state(), TenantStanding::ACTIVE);

  // The other tenant's job is handed out, though it came later; the frozen one's says why it waits.
  EXPECT_THAT(Idle("w2").work().lease().resource(), HasSubstr("tenants/other/"));
  EXPECT_TRUE(Idle("w3").has_idle());
  EXPECT_EQ(Job(waiting).state(), FineTuningJob::QUEUED);
  int told = 0;
  for (const auto& event : Events(waiting)) told += event.message() == kFrozenMessage ? 1 : 0;
  EXPECT_EQ(told, 1);

  // A release gives a verdict back and thaws nothing.
  ASSERT_OK(withheld_->Release(now_, "op", Parse(first.name()), "a false alarm"));
  EXPECT_EQ(Standing().withheld_drawn(), kWithheldBudget - 1);
  EXPECT_EQ(Standing().state(), TenantStanding::FROZEN);

  EXPECT_THAT(standings_->Unfreeze(now_, "op", "acme", ""), StatusIs(kInvalid, "REASON_REQUIRED"));
  ASSERT_OK_AND_ASSIGN(const TenantStanding after,
                       standings_->Unfreeze(now_, "op", "acme", "they called"));
  EXPECT_EQ(after.state(), TenantStanding::ACTIVE);
  EXPECT_EQ(after.withheld_drawn(), 0);
  EXPECT_EQ(after.withheld_total(), kWithheldBudget);
  ASSERT_EQ(after.unfreezes_size(), 1);
  EXPECT_EQ(after.unfreezes(0).reason(), "they called");
  EXPECT_EQ(after.unfreezes(0).decided_by(), "op");
  EXPECT_THAT(standings_->Unfreeze(now_, "op", "acme", "again"),
              StatusIs(kPrecondition, "TENANT_NOT_FROZEN"));
  EXPECT_OK(Submit());
  // By when the whole queue is looked at again: its place is one that was passed.
  now_ += absl::Seconds(1);
  EXPECT_EQ(Idle("w4").work().lease().resource(), waiting);
}

TEST_F(WithheldJobsTest, AVerdictThatAnUnfreezeForgaveIsNotGivenBackAgain) {
  SetGate();
  const std::string before = CreateWithheldJob("acme");
  ASSERT_OK(store_.Update([&](Transaction& tx) { return DrawWithheld(tx, "acme", 1, now_); }));
  now_ += absl::Seconds(1);
  ASSERT_OK(standings_->Unfreeze(now_, "op", "acme", "they called"));
  now_ += absl::Seconds(1);
  const std::string after = CreateWithheldJob("acme");
  ASSERT_EQ(Standing().withheld_drawn(), 1);
  ASSERT_OK(withheld_->Release(now_, "op", Parse(before), "harmless"));
  EXPECT_EQ(Standing().withheld_drawn(), 1);
  ASSERT_OK(withheld_->Release(now_, "op", Parse(after), "harmless"));
  EXPECT_EQ(Standing().withheld_drawn(), 0);
}

TEST_F(WithheldJobsTest, AJobSaysOnceForEachReasonWhyItWaits) {
  const std::string name = CreateJob();
  ASSERT_OK(store_.Update([&](Transaction& tx) { return DrawWithheld(tx, "acme", 1, now_); }));
  ASSERT_OK(vectors_->Retire("vec-1"));
  const auto told = [&] {
    std::vector<std::string> messages;
    for (const auto& event : Events(name)) {
      if (!event.message().empty()) messages.push_back(event.message());
    }
    return messages;
  };
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_THAT(told(), ElementsAre(kFrozenMessage));
  ASSERT_OK(standings_->Unfreeze(now_, "op", "acme", "they called"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Idle("w1").has_idle());
  EXPECT_THAT(told(), ElementsAre(kFrozenMessage, HasSubstr("no active security vector")));
  AddActiveVector("vec-2", 2);
  EXPECT_EQ(Idle("w1").work().lease().resource(), name);
}

TEST_F(WithheldJobsTest, ListsWhatWaitsOldestFirstInPages) {
  SetGate();
  std::vector<std::string> names;
  for (const char* tenant : {"acme", "other", "third", "fourth"}) {
    names.push_back(CreateWithheldJob(tenant));
  }
  ASSERT_OK(withheld_->Refuse(now_, "op", Parse(names[1]), "no"));
  admin::v1::ListWithheldJobsRequest request;
  request.set_page_size(2);
  ASSERT_OK_AND_ASSIGN(const auto first, withheld_->List(request));
  ASSERT_EQ(first.jobs_size(), 2);
  EXPECT_EQ(first.jobs(0).job(), names[0]);
  EXPECT_EQ(first.jobs(1).job(), names[2]);
  EXPECT_FALSE(first.jobs(0).has_report());
  EXPECT_THAT(first.jobs(0).failed_categories(), ElementsAre("a"));
  EXPECT_TRUE(first.jobs(0).has_expire_time());
  request.set_page_token(first.next_page_token());
  ASSERT_OK_AND_ASSIGN(const auto second, withheld_->List(request));
  ASSERT_EQ(second.jobs_size(), 1);
  EXPECT_EQ(second.jobs(0).job(), names[3]);
  EXPECT_THAT(second.next_page_token(), IsEmpty());
  request.set_page_token("forged");
  EXPECT_THAT(withheld_->List(request), StatusIs(kInvalid, "PAGE_TOKEN_INVALID"));
}

TEST_F(WithheldJobsTest, JobsOfOneTimeAreOnOnePage) {
  ASSERT_OK(store_.Update([&](Transaction& tx) -> absl::Status {
    for (int i = 0; i < 7; ++i) {
      JobRecord record;
      record.set_tenant(absl::StrCat("t", i % 2));
      record.set_id(absl::StrCat("job-", i));
      record.mutable_job()->set_name(absl::StrCat("job-", i));
      record.mutable_job()->set_state(FineTuningJob::WITHHELD);
      *record.mutable_job()->mutable_create_time() = ToTimestamp(now_ + absl::Seconds(i / 5));
      EXPECT_OK(InsertRecord(tx, record));
    }
    return absl::OkStatus();
  }));
  admin::v1::ListWithheldJobsRequest request;
  request.set_page_size(2);
  std::set<std::string> seen;
  int pages = 0;
  do {
    ASSERT_OK_AND_ASSIGN(const auto page, withheld_->List(request));
    for (const auto& job : page.jobs()) EXPECT_TRUE(seen.insert(job.job()).second);
    request.set_page_token(page.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(pages, 2);
}

TEST_F(WithheldJobsTest, AJobThatIsNotThereIsNotFound) {
  const TenantName none = {"acme", "job-none"};
  EXPECT_THAT(withheld_->Get(none), StatusIs(kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(withheld_->Release(now_, "op", none, "x"), StatusIs(kNotFound, "JOB_NOT_FOUND"));
  EXPECT_THAT(withheld_->Refuse(now_, "op", none, "x"), StatusIs(kNotFound, "JOB_NOT_FOUND"));
}

TEST_F(WithheldJobsTest, OnlySoManyUnfreezesAreKept) {
  for (int i = 0; i < 52; ++i) {
    ASSERT_OK(store_.Update([&](Transaction& tx) { return DrawWithheld(tx, "acme", 1, now_); }));
    ASSERT_OK(standings_->Unfreeze(now_, "op", "acme", absl::StrCat("reason ", i)));
  }
  EXPECT_EQ(Standing().unfreezes_size(), 50);
  EXPECT_EQ(Standing().unfreezes(49).reason(), "reason 51");
}

}  // namespace
}  // namespace ballast::server
