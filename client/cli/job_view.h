// SPDX-License-Identifier: Apache-2.0
// A job for people: its table row, its page, its progress, and the failure that a bad end is.
#ifndef BALLAST_CLIENT_CLI_JOB_VIEW_H_
#define BALLAST_CLIENT_CLI_JOB_VIEW_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "client/cpp/client.h"

namespace ballast::cli {

std::string StateName(v1::FineTuningJob::State state);

// "rows 900, 2.1M tokens …" over several lines.
std::string DescribeEstimate(const v1::Estimate& estimate);

// Every field that says something.
std::string DescribeJob(const v1::FineTuningJob& job);

// "12/40 steps  0:21 left  loss 1.842 (valid 1.931)".
std::string DescribeProgress(const v1::JobProgress& progress);

// When a job that waits starts, as far as it is known: "in 5 minutes to 4 hours"; empty where it is
// not.
std::string DescribeStart(const v1::Waiting& waiting);

// One line for an event: "RUNNING (attempt 2)", "step 20: loss 1.84, validation 1.93".
std::string DescribeEvent(const v1::JobEvent& event);

// OK for SUCCEEDED and states in which a job is on its way; otherwise ABORTED with the job's own
// reason, JOB_CANCELLED, JOB_WITHHELD or JOB_PAUSED, and exit code 6.
absl::Status EndOf(const v1::FineTuningJob& job);

// Follows a job to its end, or until it is WITHHELD or PAUSED: a progress bar on standard error
// with the events above it, or with `json` one line of JSON per update on standard output, the job
// itself last.
absl::StatusOr<v1::FineTuningJob> Follow(const client::Client& client, const std::string& name,
                                         int64_t after_sequence, bool json);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_JOB_VIEW_H_
