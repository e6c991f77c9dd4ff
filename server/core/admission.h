// SPDX-License-Identifier: Apache-2.0
// What a job may ask for: defaults, limits, and the estimate. Pure functions.
#ifndef BALLAST_SERVER_CORE_ADMISSION_H_
#define BALLAST_SERVER_CORE_ADMISSION_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/base_model_service.pb.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "common/envelope/envelope.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// The limits of a base model whose operator asked for none. The minima are part of S5: a job of one
// step or one row would be a query for a gradient under the vector.
v1::TrainingLimits DefaultLimits();

// `asked` with zeros replaced by defaults. An operator may narrow the defaults, not widen them, and
// sets no envelope: INVALID_ARGUMENT (LIMITS_OUT_OF_RANGE) with each field.
absl::StatusOr<v1::TrainingLimits> CompleteLimits(const v1::TrainingLimits& asked);

// Puts defaults in place of unset fields, within `limits` and their envelope. `seed` is used where
// none is given.
void CompleteHyperparameters(const v1::TrainingLimits& limits, int64_t seed,
                             v1::Hyperparameters* hyperparameters);

// Checks what a request says by itself, before anything is looked up: display name and labels.
// INVALID_ARGUMENT (DISPLAY_NAME_TOO_LONG, LABELS_INVALID).
absl::Status CheckDisplayName(const std::string& display_name, const std::string& field);
absl::Status CheckJobShape(const v1::FineTuningJob& job);

// Optimizer steps of a job: every pass takes the rows in batches, the last of which may be smaller.
int64_t StepsOf(int64_t rows, int32_t batch_rows, int32_t epochs);

// Checks complete hyper-parameters and data sets against the base. `validation` may be null.
// INVALID_ARGUMENT with a violation for each field and the first one's reason:
//   LEARNING_RATE_OUT_OF_RANGE, EPOCHS_OUT_OF_RANGE, BATCH_ROWS_OUT_OF_RANGE,
//   LORA_RANK_OUT_OF_RANGE, LORA_ALPHA_OUT_OF_RANGE, WARMUP_RATIO_OUT_OF_RANGE, SCHEDULE_UNKNOWN,
//   TOO_FEW_ROWS, TOO_MANY_ROWS, TOO_FEW_STEPS, TOO_MANY_STEPS, VALIDATION_DATASET_IS_TRAINING,
//   DATASET_ROW_TOO_LONG (rows longer than the base's context would be left out, and the minima no
//   longer hold), OUTSIDE_ENVELOPE (of the base's limits, where they have one).
// FAILED_PRECONDITION: DATASET_NOT_READY, DATASET_INVALID, DATASET_BASE_MISMATCH.
absl::Status Admit(const v1::Hyperparameters& hyperparameters, const BaseModelRecord& base,
                   const DatasetRecord& training, const DatasetRecord* validation);

// Where a job with complete hyper-parameters lies.
envelope::Place PlaceOfJob(const v1::Hyperparameters& hyperparameters,
                           const DatasetRecord& training);

// What a job will take. Running time from the base's recent speed, rounded to two digits.
v1::Estimate EstimateJob(const v1::Hyperparameters& hyperparameters, const BaseModelRecord& base,
                         const DatasetRecord& training);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_ADMISSION_H_
