// SPDX-License-Identifier: Apache-2.0
#include "client/cli/job_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/cli/dataset_report.h"
#include "client/cli/error_report.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::cli {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

v1::JobProgress Progress() {
  v1::JobProgress progress;
  progress.set_step(12);
  progress.set_total_steps(1040);
  auto* evaluation = progress.add_evaluations();
  evaluation->set_step(10);
  evaluation->set_training_loss(1.8421);
  progress.mutable_time_left()->set_seconds(81);
  return progress;
}

TEST(JobViewTest, Progress) {
  v1::JobProgress progress = Progress();
  EXPECT_EQ(DescribeProgress(progress), "12/1,040 steps  1:21 left  loss 1.842");
  progress.mutable_evaluations(0)->set_validation_loss(1.931);
  progress.clear_time_left();
  EXPECT_EQ(DescribeProgress(progress), "12/1,040 steps  loss 1.842 (valid 1.931)");
}

TEST(JobViewTest, Events) {
  v1::JobEvent event;
  event.mutable_state_changed()->set_state(v1::FineTuningJob::RUNNING);
  event.mutable_state_changed()->set_attempt(2);
  EXPECT_EQ(DescribeEvent(event), "RUNNING (attempt 2)");
  event.mutable_state_changed()->set_state(v1::FineTuningJob::FAILED);
  event.mutable_state_changed()->set_attempt(1);
  event.mutable_state_changed()->mutable_error()->set_reason("LOSS_NOT_FINITE");
  event.mutable_state_changed()->mutable_error()->set_message("lower the learning rate");
  EXPECT_EQ(DescribeEvent(event), "FAILED: lower the learning rate (LOSS_NOT_FINITE)");
  event.set_message("a worker was lost");
  EXPECT_EQ(DescribeEvent(event), "a worker was lost");
  auto& withheld = *event.mutable_state_changed();
  withheld.set_state(v1::FineTuningJob::WITHHELD);
  withheld.mutable_gate_verdict()->add_categories("weapons");
  EXPECT_EQ(DescribeEvent(event), "WITHHELD for weapons");
  withheld.mutable_gate_verdict()->clear_categories();
  EXPECT_EQ(DescribeEvent(event), "WITHHELD for all categories together");
}

TEST(JobViewTest, WhatScreeningFound) {
  v1::JobEvent event;
  v1::ScreeningReport& report = *event.mutable_screening();
  report.set_rows(1200);
  EXPECT_EQ(DescribeEvent(event), "screening: none of 1,200 rows looks prohibited");
  report.set_flagged_rows(14);
  report.set_action(v1::ScreeningReport::LEFT_OUT);
  for (int line = 1; line <= 14; ++line) report.add_lines(line);
  EXPECT_EQ(DescribeEvent(event),
            "screening: 14 of 1,200 rows look prohibited and are left out: lines 1, 2, 3, 4, 5, 6, "
            "7, 8, 9, 10, ...");
  report.set_flagged_rows(2);
  report.mutable_lines()->Truncate(2);
  report.set_action(v1::ScreeningReport::REFUSED);
  EXPECT_EQ(DescribeEvent(event),
            "screening: 2 of 1,200 rows look prohibited, and the job is refused: lines 1, 2");
}

TEST(JobViewTest, AJobThatWaitsSaysWhyAndForHowLong) {
  v1::FineTuningJob job;
  job.set_state(v1::FineTuningJob::QUEUED);
  job.set_queue_position(2);
  job.set_priority(-3);
  v1::Waiting& waiting = *job.mutable_waiting();
  waiting.set_reason(v1::Waiting::WORKERS_BUSY);
  waiting.set_message("the workers are busy");
  EXPECT_THAT(DescribeJob(job), Not(HasSubstr("starts"))) << "nothing is known of it";
  waiting.mutable_earliest_start()->set_seconds(300);
  waiting.mutable_latest_start()->set_seconds(3600);
  const std::string text = DescribeJob(job);
  for (const char* part :
       {"2 of yours before it", "the workers are busy", "in 5 minutes to 1 hour", "-3"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(JobViewTest, StartsAreTold) {
  const auto told = [](int64_t earliest, int64_t latest) {
    v1::Waiting waiting;
    waiting.mutable_earliest_start()->set_seconds(earliest);
    if (latest > 0) waiting.mutable_latest_start()->set_seconds(latest);
    return DescribeStart(waiting);
  };
  EXPECT_EQ(DescribeStart({}), "");
  EXPECT_EQ(told(0, 60), "within 1 minute");
  EXPECT_EQ(told(0, 300), "within 5 minutes");
  EXPECT_EQ(told(900, 14'400), "in 15 minutes to 4 hours");
  EXPECT_EQ(told(43'200, 259'200), "in 12 hours to 72 hours");
  EXPECT_EQ(told(259'200, 0), "in more than 72 hours");
}

TEST(JobViewTest, BadEndsAreFailuresOfTheCommand) {
  v1::FineTuningJob job;
  job.set_name("tenants/a/fineTuningJobs/j1");
  for (const auto state : {v1::FineTuningJob::QUEUED, v1::FineTuningJob::SUCCEEDED}) {
    job.set_state(state);
    EXPECT_OK(EndOf(job));
  }
  job.set_state(v1::FineTuningJob::FAILED);
  job.mutable_error()->set_reason("LOSS_NOT_FINITE");
  EXPECT_THAT(EndOf(job), StatusIs(absl::StatusCode::kAborted, "LOSS_NOT_FINITE"));
  EXPECT_EQ(ExitCodeOf(EndOf(job)), kExitEndedBadly);
  job.set_state(v1::FineTuningJob::CANCELLED);
  EXPECT_THAT(EndOf(job), StatusIs(absl::StatusCode::kAborted, "JOB_CANCELLED"));
  job.set_state(v1::FineTuningJob::WITHHELD);
  EXPECT_THAT(EndOf(job), StatusIs(absl::StatusCode::kAborted, "JOB_WITHHELD"));
  EXPECT_EQ(ExitCodeOf(EndOf(job)), kExitEndedBadly);
}

TEST(JobViewTest, StatesOfNewerServersHaveAName) {
  EXPECT_EQ(StateName(static_cast<v1::FineTuningJob::State>(77)), "STATE_77");
}

TEST(JobViewTest, APageOfAJob) {
  v1::FineTuningJob job;
  job.set_name("tenants/a/fineTuningJobs/j1");
  job.set_state(v1::FineTuningJob::RUNNING);
  job.set_display_name("evil\033[2J");
  *job.mutable_progress() = Progress();
  const std::string text = DescribeJob(job);
  EXPECT_THAT(text, HasSubstr("state           RUNNING\n"));
  EXPECT_THAT(text, HasSubstr("1.8421"));
  EXPECT_THAT(text, Not(HasSubstr("\033")));
  EXPECT_THAT(text, Not(HasSubstr("delta")));
}

TEST(DatasetReportTest, ShowsLinesAndCounts) {
  dataset::Report report;
  report.lines = 1203;
  report.rows_accepted = 1200;
  report.rows_rejected = 2;
  report.counts_by_reason = {{"EMPTY_LINE", 1}, {"NO_ASSISTANT_TURN", 2}};
  report.issues = {{7, "messages", "NO_ASSISTANT_TURN", "add a reply", false},
                   {9, "", "EMPTY_LINE", "remove it", true},
                   {11, "messages", "NO_ASSISTANT_TURN", "add a reply", false}};
  const v1::ValidationReport proto = ToProto(report);
  EXPECT_EQ(proto.issues_size(), 3);
  const std::string text = DescribeReport(proto, 2);
  EXPECT_THAT(text, HasSubstr("1,203 lines: 1,200 rows accepted, 2 rejected\n"));
  EXPECT_THAT(text, HasSubstr("    2  NO_ASSISTANT_TURN\n    1  EMPTY_LINE\n"));
  EXPECT_THAT(text, HasSubstr("   7  messages  NO_ASSISTANT_TURN"));
  EXPECT_THAT(text, HasSubstr("EMPTY_LINE (warning)"));
  EXPECT_THAT(text, HasSubstr("1 more; --max-issues"));
  EXPECT_THAT(DescribeReport(proto, 20), Not(HasSubstr("--max-issues")));
}

}  // namespace
}  // namespace ballast::cli
