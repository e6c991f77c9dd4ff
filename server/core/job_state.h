// SPDX-License-Identifier: Apache-2.0
// The states of jobs and what moves them: docs/job_states.md, which the test of this file reads.
// Pure functions. Those of vectors are in vector_state.h.
#ifndef BALLAST_SERVER_CORE_JOB_STATE_H_
#define BALLAST_SERVER_CORE_JOB_STATE_H_

#include <optional>
#include <string_view>

#include "ballast/v1/fine_tuning_job.pb.h"

namespace ballast::server {

// What can happen to something that workers work on. The names are the columns of
// docs/job_states.md.
enum class WorkEvent {
  kTaken,              // a worker got a lease
  kTakenToScreen,      // a worker got a lease and screens the rows first
  kScreened,           // it reported what screening found
  kResult,             // the worker reported its result: a delta or a sealed vector
  kUserError,          // it reported an error of the request or its data, or a refusal
  kPlatformError,      // it reported any other error, and attempts are left
  kPlatformErrorLast,  // the same, and no attempt is left
  kStopped,            // it reported that it stopped because it was told to cancel
  kHandedBack,         // it gave the lease back (drain)
  kLeaseExpired,       // it was silent for too long, and attempts are left
  kLeaseExpiredLast,   // the same, and no attempt is left
  kPaused,             // it reported that it stopped because it was told to pause
  kCancel,             // the owner asked for a cancel
  kPause,              // the owner asked for a pause
  kResume,             // the owner asked a paused job to go on
  kWithheld,           // the worker reported its result, and the gate failed
  kReleased,           // an operator released a withheld delta
  kRefused,            // an operator refused it
  kExpired,            // nobody decided in time
};
inline constexpr WorkEvent kAllWorkEvents[] = {WorkEvent::kTaken,
                                               WorkEvent::kTakenToScreen,
                                               WorkEvent::kScreened,
                                               WorkEvent::kResult,
                                               WorkEvent::kUserError,
                                               WorkEvent::kPlatformError,
                                               WorkEvent::kPlatformErrorLast,
                                               WorkEvent::kStopped,
                                               WorkEvent::kHandedBack,
                                               WorkEvent::kLeaseExpired,
                                               WorkEvent::kLeaseExpiredLast,
                                               WorkEvent::kPaused,
                                               WorkEvent::kCancel,
                                               WorkEvent::kPause,
                                               WorkEvent::kResume,
                                               WorkEvent::kWithheld,
                                               WorkEvent::kReleased,
                                               WorkEvent::kRefused,
                                               WorkEvent::kExpired};

// Column of docs/job_states.md.
std::string_view Name(WorkEvent event);

// State of a job after `event`, which may be the same one (then nothing happens), or nothing where
// the event is refused.
std::optional<v1::FineTuningJob::State> NextState(v1::FineTuningJob::State state, WorkEvent event);

// SUCCEEDED, FAILED or CANCELLED: never left again.
bool IsFinal(v1::FineTuningJob::State state);

// WITHHELD or PAUSED: waits for somebody's decision, perhaps for days.
bool IsAtRest(v1::FineTuningJob::State state);

// Those in which a worker holds a lease.
// Of these a job moves to later ones only.
inline constexpr v1::FineTuningJob::State kLeasedStates[] = {
    v1::FineTuningJob::SCREENING, v1::FineTuningJob::RUNNING, v1::FineTuningJob::PAUSING,
    v1::FineTuningJob::CANCELLING};
bool IsLeased(v1::FineTuningJob::State state);

// Those in which the job reads its data sets, or may yet. Who looks at them one by one, with the
// data set held, misses no job: it begins to run, and is resumed, only when the data set can be
// held for it, so it moves to a later state of these.
inline constexpr v1::FineTuningJob::State kStatesThatReadData[] = {
    v1::FineTuningJob::SCREENING,  v1::FineTuningJob::RUNNING, v1::FineTuningJob::PAUSING,
    v1::FineTuningJob::CANCELLING, v1::FineTuningJob::QUEUED,  v1::FineTuningJob::PAUSED};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_JOB_STATE_H_
