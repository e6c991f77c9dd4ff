// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_JOB_ERROR_H_
#define BALLAST_WORKER_AGENT_JOB_ERROR_H_

#include "absl/status/status.h"
#include "ballast/v1/fine_tuning_job.pb.h"

namespace ballast::worker::agent {

// What a failed lease tells the owner of a job. The texts are fixed: nothing that the engine or the
// vault said goes out, since it could hold a number computed with the vector on (S2) or tell how a
// job is protected. The worker's log has the reason.
//
//   LOSS_NOT_FINITE   USER      the training diverged
//   DATASET_EMPTY     USER      no row is left to train on
//   OUT_OF_MEMORY     PLATFORM
//   PROTECTION_UNAVAILABLE PLATFORM  anything about the vector, the vault or its key
//   BASE_MODEL_UNUSABLE    PLATFORM  the base does not load
//   WORKER_FAILED     PLATFORM  everything else
ballast::v1::JobError ToJobError(const absl::Status& status);

// What a failed lease tells the operator whose vector could not be trained: the reason and message
// as they are. USER where the rows or the options are at fault, so that it is not tried again.
ballast::v1::JobError ToVectorError(const absl::Status& status);

// Marks a failure as one of the protection, whatever its reason.
absl::Status ProtectionUnavailable();

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_JOB_ERROR_H_
