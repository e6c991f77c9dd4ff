// SPDX-License-Identifier: Apache-2.0
// Screening: before a job is trained, a guard that was fitted to the operator's examples looks at
// its rows (see worker/screening/guard.h).
#ifndef BALLAST_WORKER_AGENT_SCREENING_H_
#define BALLAST_WORKER_AGENT_SCREENING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "worker/agent/base_cache.h"
#include "worker/agent/base_loader.h"
#include "worker/agent/newest_few.h"
#include "worker/agent/row_reader.h"
#include "worker/agent/task.h"
#include "worker/screening/guard.h"

namespace ballast::worker::agent {

// The guards of bases, which every job on a base is screened by.
class GuardCache : public NewestFew<screening::Guard> {};

// Leaves the rows that the screen flags out of `rows` where its action says so, and tells the
// session what it found. FAILED_PRECONDITION (ROWS_FLAGGED) where the action refuses the job, or
// too few rows are left; CANCELLED when the session's order ended it; the errors of reading the
// examples and of fitting the guard.
absl::Status ScreenRows(TaskEnvironment& environment, LoadedBase& base,
                        const pb::ScreenWork& screen, const BaseCache::Fetch& fetch,
                        NumberedRows& rows);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_SCREENING_H_
