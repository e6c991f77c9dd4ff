// SPDX-License-Identifier: Apache-2.0
// Where a job lies, and whether that is inside the range in which a base model's protection was
// measured (ballast.v1.Envelope). Pure functions, used wherever jobs are admitted, judged or shown.
#ifndef BALLAST_COMMON_ENVELOPE_ENVELOPE_H_
#define BALLAST_COMMON_ENVELOPE_ENVELOPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ballast/v1/envelope.pb.h"
#include "ballast/v1/fine_tuning_job.pb.h"

namespace ballast::envelope {

// The method of every job: what customers cannot choose, and an envelope must allow.
inline constexpr double kRowWeight = 1.0;
inline constexpr double kGradientClipNorm = 1.0;

// Below these a job is no training but a question about the gradient of its rows, which depends on
// the vector (S5). No base model's limits go below; admission and worker both hold them.
inline constexpr int64_t kLeastRows = 10;
inline constexpr int64_t kLeastSteps = 5;
inline constexpr int32_t kLeastBatchRows = 4;
inline constexpr double kLeastLearningRate = 1e-6;
inline constexpr double kLeastLoraScale = 0.25;

// What admission knows of a data set.
struct RowStatistics {
  int64_t rows = 0;
  int64_t most_repeated_row = 1;  // near-duplicates; below 1 is taken as 1
};

// A job as a point that an envelope contains or not.
struct Place {
  double scaled_learning_rate = 0;  // learning_rate x lora_alpha / lora_rank
  double lora_scale = 0;            // lora_alpha / lora_rank
  int64_t steps = 0;
  int64_t row_passes = 0;      // rows x epochs
  int64_t passes_per_row = 0;  // epochs x most_repeated_row
  int32_t lora_rank = 0;
  int32_t batch_rows = 0;
  double warmup_ratio = 0;
  v1::Hyperparameters::Schedule schedule = v1::Hyperparameters::COSINE;
};

// Place of a job with complete hyper-parameters.
Place PlaceOf(const v1::Hyperparameters& hyperparameters, const RowStatistics& rows);

// A limit that a place breaks.
struct Violation {
  std::string field;        // of the job: "hyperparameters.learning_rate", "training_dataset", …
  std::string limit;        // of the envelope: "max_scaled_learning_rate"
  std::string description;  // value, limit and what to do
};

// INVALID_ARGUMENT (BELOW_MINIMUM) for a job that is smaller than any base model allows.
absl::Status CheckMinima(const Place& place, int64_t rows);

// Every limit that `place`, or the method of all jobs, breaks; empty inside. Numbers are compared
// with a tolerance of 1e-9 of the limit, since products are rounded.
std::vector<Violation> LimitsBroken(const Place& place, const v1::Envelope& envelope);

// INVALID_ARGUMENT (OUTSIDE_ENVELOPE) with a violation for each limit broken, its field below
// `prefix` ("fine_tuning_job.").
absl::Status CheckInside(const Place& place, const v1::Envelope& envelope,
                         const std::string& prefix);

// INVALID_ARGUMENT (ENVELOPE_INVALID) with a violation below `prefix` for each field that is
// missing, not finite, or contradicts another, and for a method of jobs that it leaves out (no job
// at all would be inside).
absl::Status CheckEnvelope(const v1::Envelope& envelope, const std::string& prefix);

// The envelope of a vector without certificate: doses that the service's own defaults and examples
// stay inside. Nothing was measured for it.
v1::Envelope ConservativeEnvelope();

}  // namespace ballast::envelope

#endif  // BALLAST_COMMON_ENVELOPE_ENVELOPE_H_
