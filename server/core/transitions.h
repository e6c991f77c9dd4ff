// SPDX-License-Identifier: Apache-2.0
// Moves jobs and vectors through their states inside a transaction: state, event and garbage
// together.
#ifndef BALLAST_SERVER_CORE_TRANSITIONS_H_
#define BALLAST_SERVER_CORE_TRANSITIONS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/core/job_state.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/vector_state.h"

namespace ballast::server {

// Moves `record` by `event` and stores it with its event and garbage. For kTaken and kTakenToScreen
// the caller has set epoch and worker, for kWithheld the job's verdict. `error` is what the worker
// reported, for the error events (customers see the reason of a platform error, not its text) and
// for a kPaused whose checkpoint failed, or what the customer is told, for kRefused and kExpired.
// FAILED_PRECONDITION (TRANSITION_REFUSED) where docs/job_states.md has no arrow; the record is
// then unchanged.
absl::Status MoveJob(Transaction& tx, JobRecord& record, WorkEvent event, const v1::JobError& error,
                     absl::Time now);

// The same for a vector in training; docs/vector_states.md has the arrows.
absl::Status MoveVector(Transaction& tx, VectorRecord& record, WorkEvent event,
                        const v1::JobError& error, absl::Time now);

// Moves a vector by an operator's decision (kCertified, kNotCertified, kActivated, kRetired) and
// stores it with its garbage. `why` is its error message when it is REJECTED.
// FAILED_PRECONDITION (TRANSITION_REFUSED).
absl::Status DecideVector(Transaction& tx, VectorRecord& record, VectorDecision decision,
                          const std::string& why);

// The event that an error reported by a worker is, given the attempts that failed before this one.
WorkEvent EventOfError(const v1::JobError& error, const LeaseRecord& lease, int max_attempts);
// The event of a lost lease.
WorkEvent EventOfExpiry(const LeaseRecord& lease, int max_attempts);

inline constexpr absl::Duration kLongestRest = absl::Minutes(5);
// How long work rests after its `failures`-th error of the platform: `first`, doubled by each, at
// most kLongestRest.
absl::Duration RetryAfter(int failures, absl::Duration first);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_TRANSITIONS_H_
