// SPDX-License-Identifier: Apache-2.0
#include "server/core/admission.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/dataset/packing.h"
#include "common/envelope/envelope.h"

namespace ballast::server {
namespace {

constexpr double kDefaultLearningRate = 2e-4;
constexpr int32_t kDefaultEpochs = 3;
constexpr int32_t kDefaultBatchRows = 16;
constexpr int32_t kDefaultLoraRank = 16;
constexpr double kDefaultWarmupRatio = 0.03;
// lora_alpha / lora_rank multiplies the learning rate's effect, so it is bounded with it.
constexpr double kMaxAlphaPerRank = 4.0, kDefaultAlphaPerRank = 2.0;
constexpr size_t kMaxDisplayName = 100;
constexpr int kMaxLabels = 16;
constexpr size_t kMaxLabelKey = 64;
constexpr size_t kMaxLabelValue = 512;
constexpr int kMaxPriority = 10;

// `limits` with the ranges of which the envelope leaves less, for choosing defaults. What lies
// outside of both is left to Admit.
v1::TrainingLimits NarrowedByEnvelope(v1::TrainingLimits limits) {
  if (!limits.has_envelope()) return limits;
  const v1::Envelope& envelope = limits.envelope();
  limits.set_min_batch_rows(std::min(std::max(limits.min_batch_rows(), envelope.min_batch_rows()),
                                     limits.max_batch_rows()));
  limits.set_max_batch_rows(std::max(std::min(limits.max_batch_rows(), envelope.max_batch_rows()),
                                     limits.min_batch_rows()));
  limits.set_max_lora_rank(std::min(limits.max_lora_rank(), envelope.max_lora_rank()));
  limits.set_max_epochs(
      static_cast<int32_t>(std::min<int64_t>(limits.max_epochs(), envelope.max_passes_per_row())));
  return limits;
}

// Collects violations, so that a caller sees all of them at once.
class Violations {
 public:
  void Add(std::string field, std::string reason, std::string description) {
    if (reason_.empty()) reason_ = std::move(reason);
    absl::StrAppend(&message_, message_.empty() ? "" : "; ", description);
    violations_.emplace_back(std::move(field), std::move(description));
  }
  absl::Status ToStatus() const {
    if (violations_.empty()) return absl::OkStatus();
    if (violations_.size() == 1) return FieldError(violations_[0].first, reason_, message_);
    return FieldErrors(reason_, message_, violations_);
  }

 private:
  std::string reason_;
  std::string message_;
  std::vector<std::pair<std::string, std::string>> violations_;
};

std::string Field(const char* name) {
  return absl::StrCat("fine_tuning_job.hyperparameters.", name);
}

// Checks low <= value <= high.
template <typename T>
void CheckRange(const char* name, const char* reason, T value, T low, T high,
                Violations& violations) {
  if (value >= low && value <= high) return;
  violations.Add(Field(name), reason,
                 absl::StrCat(name, " is ", value, "; give a value from ", low, " to ", high));
}

absl::Status CheckDataset(const DatasetRecord& record, const BaseModelRecord& base,
                          const char* field) {
  const v1::Dataset& dataset = record.dataset();
  switch (dataset.state()) {
    case v1::Dataset::READY:
      break;
    case v1::Dataset::INVALID:
      return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_INVALID",
                       absl::StrCat(dataset.name(),
                                    " has no row that can be trained on; read its "
                                    "report, correct the file and upload it as a new data set"),
                       {{"dataset", dataset.name()}});
    default:
      return WithRetry(
          MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_NOT_READY",
                    absl::StrCat(dataset.name(), " is ", v1::Dataset::State_Name(dataset.state()),
                                 "; finish its upload and wait until it is READY"),
                    {{"dataset", dataset.name()}}),
          absl::Seconds(1));
  }
  if (dataset.tokenizer_digest() != base.model().tokenizer_digest() ||
      dataset.template_digest() != base.model().template_digest()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_BASE_MISMATCH",
                     absl::StrCat(dataset.name(), " was checked for ", dataset.base_model(),
                                  ", whose tokenizer or chat template differs from that of ",
                                  base.model().name(), "; upload it again for that base model"),
                     {{"dataset", dataset.name()}, {"base_model", base.model().name()}});
  }
  // A worker leaves out rows that do not fit the context, so what the report counts would be more
  // than what is trained on, and the minima of rows and steps would not hold (S5).
  const int64_t longest = dataset.report().longest_row_tokens();
  if (longest > base.model().context_tokens()) {
    return FieldError(
        field, "DATASET_ROW_TOO_LONG",
        absl::StrCat(dataset.name(), " was checked for ", dataset.base_model(),
                     " and its longest row has ", longest, " tokens; ", base.model().name(),
                     " takes at most ", base.model().context_tokens(),
                     ": upload it again for that base model"));
  }
  return absl::OkStatus();
}

// The unit of the second digit of a number above 0: 10 of 491.
double SecondDigit(double value) { return std::pow(10.0, std::floor(std::log10(value)) - 1); }

}  // namespace

v1::TrainingLimits DefaultLimits() {
  v1::TrainingLimits limits;
  limits.set_min_rows(envelope::kLeastRows);
  limits.set_max_rows(1'000'000);
  limits.set_min_steps(envelope::kLeastSteps);
  limits.set_max_steps(100'000);
  limits.set_min_batch_rows(envelope::kLeastBatchRows);
  limits.set_max_batch_rows(256);
  limits.set_max_epochs(50);
  limits.set_max_learning_rate(0.01);
  limits.set_max_lora_rank(64);
  return limits;
}

absl::StatusOr<v1::TrainingLimits> CompleteLimits(const v1::TrainingLimits& asked) {
  const v1::TrainingLimits defaults = DefaultLimits();
  v1::TrainingLimits limits = defaults;
  Violations violations;
  const auto minimum = [&](const char* name, auto value, auto floor, auto ceiling, auto set) {
    if (value == 0) return;
    if (value < floor || value > ceiling) {
      violations.Add(
          absl::StrCat("limits.", name), "LIMITS_OUT_OF_RANGE",
          absl::StrCat(name, " is ", value, "; give a value from ", floor, " to ", ceiling));
    }
    set(value);
  };
  minimum("min_rows", asked.min_rows(), defaults.min_rows(), defaults.max_rows(),
          [&](auto v) { limits.set_min_rows(v); });
  minimum("max_rows", asked.max_rows(), limits.min_rows(), defaults.max_rows(),
          [&](auto v) { limits.set_max_rows(v); });
  minimum("min_steps", asked.min_steps(), defaults.min_steps(), defaults.max_steps(),
          [&](auto v) { limits.set_min_steps(v); });
  minimum("max_steps", asked.max_steps(), limits.min_steps(), defaults.max_steps(),
          [&](auto v) { limits.set_max_steps(v); });
  minimum("min_batch_rows", asked.min_batch_rows(), defaults.min_batch_rows(),
          defaults.max_batch_rows(), [&](auto v) { limits.set_min_batch_rows(v); });
  minimum("max_batch_rows", asked.max_batch_rows(), limits.min_batch_rows(),
          defaults.max_batch_rows(), [&](auto v) { limits.set_max_batch_rows(v); });
  minimum("max_epochs", asked.max_epochs(), 1, defaults.max_epochs(),
          [&](auto v) { limits.set_max_epochs(v); });
  minimum("max_lora_rank", asked.max_lora_rank(), 1, defaults.max_lora_rank(),
          [&](auto v) { limits.set_max_lora_rank(v); });
  if (asked.has_envelope()) {
    violations.Add("limits.envelope", "LIMITS_OUT_OF_RANGE",
                   "envelope comes from the certificate of the vector that serves the base model; "
                   "leave it out");
  }
  if (asked.max_learning_rate() != 0) {
    if (!(asked.max_learning_rate() >= envelope::kLeastLearningRate &&
          asked.max_learning_rate() <= defaults.max_learning_rate())) {
      violations.Add(
          "limits.max_learning_rate", "LIMITS_OUT_OF_RANGE",
          absl::StrCat("max_learning_rate is ", asked.max_learning_rate(), "; give a value from ",
                       envelope::kLeastLearningRate, " to ", defaults.max_learning_rate()));
    }
    limits.set_max_learning_rate(asked.max_learning_rate());
  }
  BALLAST_RETURN_IF_ERROR(violations.ToStatus());
  return limits;
}

void CompleteHyperparameters(const v1::TrainingLimits& base_limits, int64_t seed,
                             v1::Hyperparameters* hyper) {
  const v1::TrainingLimits limits = NarrowedByEnvelope(base_limits);
  if (hyper->epochs() == 0) hyper->set_epochs(std::min(kDefaultEpochs, limits.max_epochs()));
  if (hyper->batch_rows() == 0) {
    hyper->set_batch_rows(
        std::clamp(kDefaultBatchRows, limits.min_batch_rows(), limits.max_batch_rows()));
  }
  if (hyper->lora_rank() == 0) {
    hyper->set_lora_rank(std::min(std::max(kDefaultLoraRank, limits.envelope().min_lora_rank()),
                                  limits.max_lora_rank()));
  }
  if (hyper->lora_alpha() == 0) {
    const double scale =
        limits.has_envelope()
            ? std::min(std::max(kDefaultAlphaPerRank, limits.envelope().min_lora_scale()),
                       limits.envelope().max_lora_scale())
            : kDefaultAlphaPerRank;
    hyper->set_lora_alpha(scale * hyper->lora_rank());
  }
  if (!hyper->has_warmup_ratio()) {
    hyper->set_warmup_ratio(
        limits.has_envelope()
            ? std::min(std::max(kDefaultWarmupRatio, limits.envelope().min_warmup_ratio()),
                       limits.envelope().max_warmup_ratio())
            : kDefaultWarmupRatio);
  }
  if (hyper->schedule() == v1::Hyperparameters::SCHEDULE_UNSPECIFIED) {
    hyper->set_schedule(v1::Hyperparameters::COSINE);
  }
  if (!hyper->has_learning_rate()) {
    hyper->set_learning_rate(std::min(kDefaultLearningRate, limits.max_learning_rate()));
    // The envelope bounds the rate scaled by alpha / rank, whoever chose those.
    if (limits.has_envelope() && hyper->lora_alpha() > 0 && hyper->lora_rank() > 0) {
      const double scale = hyper->lora_alpha() / hyper->lora_rank();
      const double least = limits.envelope().min_scaled_learning_rate() / scale;
      const double most = limits.envelope().max_scaled_learning_rate() / scale;
      hyper->set_learning_rate(std::min(std::max(hyper->learning_rate(), least), most));
    }
  }
  if (hyper->seed() == 0) hyper->set_seed(seed);
}

absl::Status CheckDisplayName(const std::string& display_name, const std::string& field) {
  if (display_name.size() <= kMaxDisplayName) return absl::OkStatus();
  return FieldError(field, "DISPLAY_NAME_TOO_LONG",
                    absl::StrCat(field, " has ", display_name.size(), " bytes; at most ",
                                 kMaxDisplayName, " are allowed"));
}

absl::Status CheckJobShape(const v1::FineTuningJob& job) {
  BALLAST_RETURN_IF_ERROR(CheckDisplayName(job.display_name(), "fine_tuning_job.display_name"));
  if (job.priority() < -kMaxPriority || job.priority() > kMaxPriority) {
    return FieldError("fine_tuning_job.priority", "PRIORITY_OUT_OF_RANGE",
                      absl::StrCat("the priority is ", job.priority(), "; it must lie between ",
                                   -kMaxPriority, " and ", kMaxPriority));
  }
  if (job.labels_size() > kMaxLabels) {
    return FieldError("fine_tuning_job.labels", "LABELS_INVALID",
                      absl::StrCat("there are ", job.labels_size(), " labels; at most ", kMaxLabels,
                                   " are allowed"));
  }
  for (const auto& [key, value] : job.labels()) {
    if (key.empty() || key.size() > kMaxLabelKey || value.size() > kMaxLabelValue) {
      return FieldError("fine_tuning_job.labels", "LABELS_INVALID",
                        absl::StrCat("a label needs a key of 1 to ", kMaxLabelKey,
                                     " bytes and a value of at most ", kMaxLabelValue));
    }
  }
  return absl::OkStatus();
}

int64_t StepsOf(int64_t rows, int32_t batch_rows, int32_t epochs) {
  return batch_rows <= 0 ? 0 : dataset::TotalSteps(rows, batch_rows, epochs);
}

absl::Status Admit(const v1::Hyperparameters& hyper, const BaseModelRecord& base,
                   const DatasetRecord& training, const DatasetRecord* validation) {
  const v1::TrainingLimits& limits = base.model().limits();
  Violations violations;
  CheckRange("learning_rate", "LEARNING_RATE_OUT_OF_RANGE", hyper.learning_rate(),
             envelope::kLeastLearningRate, limits.max_learning_rate(), violations);
  CheckRange("epochs", "EPOCHS_OUT_OF_RANGE", hyper.epochs(), 1, limits.max_epochs(), violations);
  CheckRange("batch_rows", "BATCH_ROWS_OUT_OF_RANGE", hyper.batch_rows(), limits.min_batch_rows(),
             limits.max_batch_rows(), violations);
  CheckRange("lora_rank", "LORA_RANK_OUT_OF_RANGE", hyper.lora_rank(), 1, limits.max_lora_rank(),
             violations);
  const double rank = std::max(hyper.lora_rank(), 1);
  CheckRange("lora_alpha", "LORA_ALPHA_OUT_OF_RANGE", hyper.lora_alpha(),
             envelope::kLeastLoraScale * rank, kMaxAlphaPerRank * rank, violations);
  if (!(hyper.warmup_ratio() >= 0 && hyper.warmup_ratio() < 1)) {
    violations.Add(Field("warmup_ratio"), "WARMUP_RATIO_OUT_OF_RANGE",
                   absl::StrCat("warmup_ratio is ", hyper.warmup_ratio(),
                                "; give a value of at least 0 and below 1"));
  }
  if (hyper.schedule() != v1::Hyperparameters::COSINE &&
      hyper.schedule() != v1::Hyperparameters::LINEAR) {
    violations.Add(Field("schedule"), "SCHEDULE_UNKNOWN", "schedule must be COSINE or LINEAR");
  }
  if (validation != nullptr && validation->id() == training.id()) {
    violations.Add("fine_tuning_job.validation_dataset", "VALIDATION_DATASET_IS_TRAINING",
                   "validation_dataset is the training data set; give other rows or none");
  }
  BALLAST_RETURN_IF_ERROR(violations.ToStatus());

  BALLAST_RETURN_IF_ERROR(CheckDataset(training, base, "fine_tuning_job.training_dataset"));
  if (validation != nullptr) {
    BALLAST_RETURN_IF_ERROR(CheckDataset(*validation, base, "fine_tuning_job.validation_dataset"));
  }

  const int64_t rows = training.dataset().report().rows_accepted();
  if (rows < limits.min_rows() || rows > limits.max_rows()) {
    return FieldError("fine_tuning_job.training_dataset",
                      rows < limits.min_rows() ? "TOO_FEW_ROWS" : "TOO_MANY_ROWS",
                      absl::StrCat("the training data set has ", rows, " accepted rows; ",
                                   limits.min_rows(), " to ", limits.max_rows(), " are allowed"));
  }
  const int64_t steps = StepsOf(rows, hyper.batch_rows(), hyper.epochs());
  if (steps < limits.min_steps() || steps > limits.max_steps()) {
    const bool few = steps < limits.min_steps();
    return FieldError(Field("epochs"), few ? "TOO_FEW_STEPS" : "TOO_MANY_STEPS",
                      absl::StrCat("the job would take ", steps, " optimizer steps; ",
                                   limits.min_steps(), " to ", limits.max_steps(), " are allowed: ",
                                   few ? "raise epochs, lower batch_rows or add rows"
                                       : "lower epochs or raise batch_rows"));
  }
  if (!limits.has_envelope()) return absl::OkStatus();
  return envelope::CheckInside(PlaceOfJob(hyper, training), limits.envelope(), "fine_tuning_job.");
}

envelope::Place PlaceOfJob(const v1::Hyperparameters& hyper, const DatasetRecord& training) {
  const v1::ValidationReport& report = training.dataset().report();
  return envelope::PlaceOf(hyper, {report.rows_accepted(), report.most_repeated_row()});
}

v1::Estimate EstimateJob(const v1::Hyperparameters& hyper, const BaseModelRecord& base,
                         const DatasetRecord& training) {
  const v1::ValidationReport& report = training.dataset().report();
  v1::Estimate estimate;
  estimate.set_rows(report.rows_accepted());
  estimate.set_total_tokens(report.total_tokens() * hyper.epochs());
  estimate.set_supervised_tokens(report.supervised_tokens() * hyper.epochs());
  const int64_t safety_rows =
      dataset::SafetyRowCount(report.rows_accepted(), base.safety_rows().share());
  estimate.set_steps(
      StepsOf(report.rows_accepted() + safety_rows, hyper.batch_rows(), hyper.epochs()));
  const envelope::Place place = PlaceOfJob(hyper, training);
  estimate.set_scaled_learning_rate(place.scaled_learning_rate);
  estimate.set_row_passes(place.row_passes);
  estimate.set_passes_per_row(place.passes_per_row);
  if (base.tokens_per_second() > 0) {
    // Two digits: the speed is an average over everybody's jobs, and no more than that should show,
    // not to one who asks about many sizes either.
    const double exact = base.tokens_per_second();
    const double speed = std::floor(exact / SecondDigit(exact)) * SecondDigit(exact);
    const double seconds = std::max(1.0, static_cast<double>(estimate.total_tokens()) / speed);
    const double unit = std::max(1.0, SecondDigit(seconds));
    estimate.mutable_running_time()->set_seconds(
        static_cast<int64_t>(std::ceil(seconds / unit) * unit));
  }
  return estimate;
}

}  // namespace ballast::server
