// SPDX-License-Identifier: Apache-2.0
#include "server/core/transitions.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/usage.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;
using v1::FineTuningJob;
using v1::JobError;

constexpr size_t kMaxReason = 63;
constexpr size_t kMaxMessage = 1000;

// A worker's text is bounded before it is kept.
JobError Bounded(JobError error) {
  if (error.reason().empty()) error.set_reason("UNKNOWN");
  error.set_reason(ValidUtf8(error.reason(), kMaxReason));
  error.set_message(ValidUtf8(error.message(), kMaxMessage));
  return error;
}

bool IsPlatform(WorkEvent event) {
  return event == WorkEvent::kPlatformError || event == WorkEvent::kPlatformErrorLast;
}

bool IsExpiry(WorkEvent event) {
  return event == WorkEvent::kLeaseExpired || event == WorkEvent::kLeaseExpiredLast;
}

// Why an attempt ended, in words that say nothing of the worker's insides.
std::string WhyEnded(WorkEvent event, const JobError& error) {
  if (IsExpiry(event)) return "the worker was lost";
  if (event == WorkEvent::kHandedBack) return "the worker was stopped";
  return absl::StrCat("the attempt ended with ", Bounded(error).reason());
}

absl::Status Refused(const std::string& name, const std::string& state, std::string_view event) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "TRANSITION_REFUSED",
      absl::StrCat(name, " is ", state, "; \"", std::string(event), "\" is not possible now"),
      {{"state", state}});
}

absl::Status AppendMessage(Transaction& tx, JobRecord& record, const std::string& text,
                           absl::Time now) {
  v1::JobEvent event;
  event.set_message(text);
  return AppendJobEvent(tx, record, std::move(event), now);
}

// What is left of attempts once a job was trained or has ended: the files of its delta stay.
absl::Status AddJobGarbage(Transaction& tx, const JobRecord& record) {
  if (record.job().state() != FineTuningJob::SUCCEEDED &&
      record.job().state() != FineTuningJob::WITHHELD) {
    return tx.AddGarbage(JobBlobs(record.tenant(), record.id()));
  }
  for (int64_t epoch = 1; epoch <= record.lease().epoch(); ++epoch) {
    const std::string attempt = AttemptBlobs(record, epoch);
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(
        epoch == record.lease().epoch() ? absl::StrCat(attempt, "/checkpoints") : attempt));
  }
  return absl::OkStatus();
}

void EndAttempt(WorkEvent event, LeaseRecord& lease) {
  lease.clear_worker_id();
  if (IsPlatform(event) || IsExpiry(event)) lease.set_failed_attempts(lease.failed_attempts() + 1);
  if (IsExpiry(event)) lease.set_lost_attempts(lease.lost_attempts() + 1);
}

JobError FinalError(WorkEvent event, const JobError& error, const LeaseRecord& lease) {
  if (event == WorkEvent::kUserError || event == WorkEvent::kRefused ||
      event == WorkEvent::kExpired) {
    return Bounded(error);
  }
  JobError exhausted;
  exhausted.set_kind(JobError::PLATFORM);
  if (lease.lost_attempts() == lease.failed_attempts()) {
    exhausted.set_reason("WORKERS_LOST");
    exhausted.set_message(absl::StrCat(
        "each of the ", lease.failed_attempts(),
        " workers that took it was lost; it may be what stops them, so no other is risked. Tell "
        "the operator, or create it again with smaller batches or shorter rows"));
    return exhausted;
  }
  exhausted.set_reason("ATTEMPTS_EXHAUSTED");
  exhausted.set_message(absl::StrCat("gave up after ", lease.failed_attempts(),
                                     " failed attempts, the last because ", WhyEnded(event, error),
                                     "; create it again, and tell the operator if it fails again"));
  return exhausted;
}

// What is said where an attempt ends and the job does not; empty for nothing.
std::string WhatNow(const JobRecord& record, WorkEvent event, const JobError& error,
                    absl::Time now) {
  const LeaseRecord& lease = record.lease();
  if (event == WorkEvent::kPaused) {
    if (error.reason().empty()) return "";
    return "the last checkpoint could not be written; what was trained since the one before will "
           "be trained again";
  }
  if (record.job().state() == FineTuningJob::PAUSED) {
    return absl::StrCat(WhyEnded(event, error),
                        "; the job is paused, and goes on from its last "
                        "checkpoint");
  }
  if (lease.has_retry_time() && FromTimestamp(lease.retry_time()) > now) {
    const absl::Duration rest = FromTimestamp(lease.retry_time()) - now;
    return absl::StrCat(WhyEnded(event, error), "; the job is tried again in ",
                        absl::FormatDuration(absl::Ceil(rest, absl::Seconds(1))));
  }
  return absl::StrCat(WhyEnded(event, error), "; the job waits for another worker");
}

// Where the next attempt starts, as far as a tenant may know: a checkpoint is taken at any step,
// and the time that one step took tells of the vector (S2).
void SetBackProgress(JobRecord& record) {
  FineTuningJob& job = *record.mutable_job();
  if (!job.has_progress()) return;
  record.set_most_trained_tokens(
      std::max(record.most_trained_tokens(), job.progress().trained_tokens()));
  int64_t step = 0;
  for (const v1::Evaluation& evaluation : job.progress().evaluations()) {
    if (evaluation.step() <= record.checkpoint_step()) step = evaluation.step();
  }
  job.mutable_progress()->set_step(step);
  job.mutable_progress()->clear_time_left();
}

}  // namespace

WorkEvent EventOfError(const JobError& error, const LeaseRecord& lease, int max_attempts) {
  if (error.kind() == JobError::USER || error.kind() == JobError::REFUSED) {
    return WorkEvent::kUserError;
  }
  return lease.failed_attempts() + 1 >= max_attempts ? WorkEvent::kPlatformErrorLast
                                                     : WorkEvent::kPlatformError;
}

WorkEvent EventOfExpiry(const LeaseRecord& lease, int max_attempts) {
  return lease.failed_attempts() + 1 >= max_attempts ? WorkEvent::kLeaseExpiredLast
                                                     : WorkEvent::kLeaseExpired;
}

absl::Duration RetryAfter(int failures, absl::Duration first) {
  absl::Duration rest = first;
  for (int i = 1; i < failures && rest < kLongestRest; ++i) rest *= 2;
  return std::min(rest, kLongestRest);
}

absl::Status MoveJob(Transaction& tx, JobRecord& record, WorkEvent event, const JobError& error,
                     absl::Time now) {
  FineTuningJob& job = *record.mutable_job();
  const auto next = NextState(job.state(), event);
  if (!next.has_value()) {
    return Refused(job.name(), FineTuningJob::State_Name(job.state()), Name(event));
  }
  if (*next == job.state()) return absl::OkStatus();
  const bool was_leased = IsLeased(job.state());
  job.set_state(*next);
  v1::JobEvent state_event;
  auto& changed = *state_event.mutable_state_changed();
  changed.set_state(*next);

  if (event == WorkEvent::kTaken || event == WorkEvent::kTakenToScreen) {
    job.set_attempt(job.attempt() + 1);
    if (!job.has_start_time()) *job.mutable_start_time() = ToTimestamp(now);
  }
  if (was_leased && !IsLeased(*next)) EndAttempt(event, *record.mutable_lease());
  if (was_leased && (*next == FineTuningJob::QUEUED || *next == FineTuningJob::PAUSED)) {
    if (const std::string text = WhatNow(record, event, error, now); !text.empty()) {
      BALLAST_RETURN_IF_ERROR(AppendMessage(tx, record, text, now));
    }
    SetBackProgress(record);
    if (*next == FineTuningJob::QUEUED) *record.mutable_waits_since() = ToTimestamp(now);
  }
  if (*next == FineTuningJob::WITHHELD) *changed.mutable_gate_verdict() = job.gate_verdict();
  if (IsFinal(*next)) *job.mutable_end_time() = ToTimestamp(now);
  if (IsFinal(*next) || *next == FineTuningJob::WITHHELD) {
    if (job.has_progress()) job.mutable_progress()->clear_time_left();
    record.clear_checkpoint_blob();
    record.clear_checkpoint_step();
    if (*next == FineTuningJob::FAILED) {
      *job.mutable_error() = FinalError(event, error, record.lease());
      *changed.mutable_error() = job.error();
    }
    if (IsFinal(*next)) BALLAST_RETURN_IF_ERROR(AccountFor(tx, record, now));
    BALLAST_RETURN_IF_ERROR(AddJobGarbage(tx, record));
  }
  changed.set_attempt(job.attempt());
  BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx, record, std::move(state_event), now));
  job.set_etag(absl::StrCat(record.last_event()));
  return ReplaceRecord(tx, record);
}

absl::Status MoveVector(Transaction& tx, VectorRecord& record, WorkEvent event,
                        const JobError& error, absl::Time now) {
  Vector& vector = *record.mutable_vector();
  const auto next = NextState(vector.state(), event);
  if (!next.has_value()) {
    return Refused(vector.name(), Vector::State_Name(vector.state()), Name(event));
  }
  vector.set_state(*next);
  if (event != WorkEvent::kTaken) {
    EndAttempt(event, *record.mutable_lease());
    if (*next == Vector::DRAFT) vector.set_progress(0);
  }
  if (*next == Vector::REJECTED) {
    const JobError final_error = FinalError(event, error, record.lease());
    vector.set_error_message(absl::StrCat(final_error.reason(), ": ", final_error.message()));
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(VectorBlobs(record.id())));
  }
  if (*next == Vector::CERTIFYING) {
    vector.set_progress(1);
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(absl::StrCat(VectorBlobs(record.id()), "/rows")));
    for (int64_t epoch = 1; epoch < record.lease().epoch(); ++epoch) {
      BALLAST_RETURN_IF_ERROR(
          tx.AddGarbage(absl::StrCat(VectorBlobs(record.id()), "/attempts/", epoch)));
    }
  }
  if (*next == Vector::CERTIFYING || *next == Vector::REJECTED) {
    record.clear_prohibited_blob();
    record.clear_benign_blob();
    record.clear_topics_blob();
  }
  return ReplaceRecord(tx, record);
}

absl::Status DecideVector(Transaction& tx, VectorRecord& record, VectorDecision decision,
                          const std::string& why) {
  Vector& vector = *record.mutable_vector();
  const auto next = NextState(vector.state(), decision);
  if (!next.has_value()) {
    return Refused(vector.name(), Vector::State_Name(vector.state()), Name(decision));
  }
  vector.set_state(*next);
  if (*next == Vector::REJECTED) {
    vector.set_error_message(why);
    // Without its bytes it cannot serve, whatever becomes of its record.
    record.clear_sealed_blob();
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(VectorBlobs(record.id())));
  }
  return ReplaceRecord(tx, record);
}

}  // namespace ballast::server
