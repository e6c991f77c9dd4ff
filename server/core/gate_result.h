// SPDX-License-Identifier: Apache-2.0
// A trained delta and what the gate found of it, taken into the job's record.
#ifndef BALLAST_SERVER_CORE_GATE_RESULT_H_
#define BALLAST_SERVER_CORE_GATE_RESULT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/job_state.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// Puts the files and the report into `record`, which the caller moves by the result: kResult where
// the attempt had no gate or passed it, else kWithheld, which has drawn on the budget of the
// tenant. INVALID_ARGUMENT (RESULT_INVALID) where the attempt was given a gate and has no report of
// it, or the other way round, or the report makes no sense: nothing is to be kept then.
absl::StatusOr<WorkEvent> TakeDelta(Transaction& tx, JobRecord& record,
                                    const worker::v1::SynchronizeRequest::DeltaResult& delta,
                                    const std::vector<BlobFile>& files, int withheld_budget,
                                    absl::Time now);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_GATE_RESULT_H_
