// SPDX-License-Identifier: Apache-2.0
#include "worker/train/train_job.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/dataset/packing.h"
#include "worker/train/by_row_rule.h"

namespace ballast::worker {
namespace {

// Rows of which the losses by window are held at once.
constexpr size_t kRowsScoredAtOnce = 4096;
// Fewest steps between two evaluations of a job whose rows are told apart by the vector: the time
// from one event to the next must not be that of a single step (S2).
constexpr int64_t kStepsApartByRow = 10;

constexpr int64_t kTrainingSampleRows = 64, kTrainingSampleLeastRows = 16;
constexpr int64_t kValidationSampleRows = 256;

// `count` rows that depend on the number of rows and the seed alone, so that their losses can be
// recomputed by anyone who holds the data set (S2).
std::vector<const TokenRow*> SampleRows(const std::vector<TokenRow>& rows, uint64_t seed,
                                        int64_t count) {
  std::vector<const TokenRow*> sample;
  // An "epoch" that training never reaches gives an order of its own.
  for (const int64_t row : dataset::EpochOrder(static_cast<int64_t>(rows.size()), seed, -1)) {
    if (static_cast<int64_t>(sample.size()) == count) break;
    if (TargetCount(rows[row]) > 0) sample.push_back(&rows[row]);
  }
  return sample;
}

absl::Status OutOfRange(std::string_view field, std::string_view expected) {
  std::string reason = "TRAIN_CONFIG_INVALID";
  return FieldError(field, reason,
                    absl::StrCat(absl::string_view(field.data(), field.size()), " must be ",
                                 absl::string_view(expected.data(), expected.size())));
}

}  // namespace

absl::Status CheckTrainConfig(const TrainConfig& config, const artifact::ModelConfig& model) {
  BALLAST_RETURN_IF_ERROR(CheckLora(config.lora, model));
  if (!(config.learning_rate > 0) || config.learning_rate > 1) {
    return OutOfRange("learning_rate", "above 0 and at most 1; 0.0002 is usual");
  }
  if (config.epochs < 1) return OutOfRange("epochs", "at least 1");
  if (config.batch_rows < 1) return OutOfRange("batch_rows", "at least 1");
  if (config.max_tokens_per_micro_batch < 1) {
    return OutOfRange("max_tokens_per_micro_batch", "at least 1");
  }
  if (!(config.warmup_ratio >= 0) || config.warmup_ratio > 1) {
    return OutOfRange("warmup_ratio", "between 0 and 1");
  }
  if (!(config.weight_decay >= 0) || config.weight_decay > 1) {
    return OutOfRange("weight_decay", "between 0 and 1");
  }
  if (!(config.adam_beta1 >= 0 && config.adam_beta1 < 1)) {
    return OutOfRange("adam_beta1", "at least 0 and below 1");
  }
  if (!(config.adam_beta2 >= 0 && config.adam_beta2 < 1)) {
    return OutOfRange("adam_beta2", "at least 0 and below 1");
  }
  if (!(config.adam_epsilon > 0)) return OutOfRange("adam_epsilon", "above 0");
  if (!(config.max_gradient_norm >= 0)) {
    return OutOfRange("max_gradient_norm", "0 (no clipping) or a positive number");
  }
  return absl::OkStatus();
}

TrainJob::TrainJob(Model& model, const TrainRequest& request, const TrainCallbacks& callbacks)
    : model_(model),
      request_(request),
      config_(request.config),
      callbacks_(callbacks),
      learner_(model) {}

TrainJob::~TrainJob() { learner_.workspace().Clear(/*wipe=*/merged_ != nullptr); }

absl::StatusOr<TrainResult> TrainJob::Run() {
  BALLAST_RETURN_IF_ERROR(Prepare());
  BALLAST_RETURN_IF_ERROR(AssignGroups());
  if (callbacks_.started) callbacks_.started(progress_);
  BALLAST_RETURN_IF_ERROR(EvaluateIfDue());
  const int64_t steps_per_epoch = progress_.total_steps / config_.epochs;
  while (progress_.step < progress_.total_steps) {
    BALLAST_RETURN_IF_ERROR(TrainEpoch(progress_.step / steps_per_epoch));
  }
  const auto own_rows = groups_.begin() + static_cast<std::ptrdiff_t>(request_.rows.size());
  return TrainResult{ExportAdapter(state_->layout(), state_->Parameters().data()), progress_,
                     evaluations_, std::count(groups_.begin(), own_rows, 1)};
}

absl::Status TrainJob::Prepare() {
  BALLAST_RETURN_IF_ERROR(CheckTrainConfig(config_, model_.config));
  BALLAST_RETURN_IF_ERROR(CheckRows(request_.rows, model_.config, "training"));
  if (!request_.safety_rows.empty()) {
    BALLAST_RETURN_IF_ERROR(CheckRows(request_.safety_rows, model_.config, "safety"));
  }
  if (!request_.validation_rows.empty()) {
    BALLAST_RETURN_IF_ERROR(CheckRows(request_.validation_rows, model_.config, "validation"));
  }
  if (request_.vector != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(merged_, MergeVector(model_, *request_.vector));
    merged_->Reserve(config_.lora.rank);
  }
  model_.clean->Reserve(config_.lora.rank);

  for (const TokenRow& row : request_.rows) rows_.push_back(&row);
  safety_places_.assign(request_.safety_rows.size(), -1);
  const size_t all = request_.rows.size() + request_.safety_rows.size();
  for (int64_t epoch = 0; epoch < config_.epochs && rows_.size() < all; ++epoch) {
    for (const int64_t row : SafetyRowsOf(epoch)) {
      if (safety_places_[row] >= 0) continue;
      safety_places_[row] = static_cast<int64_t>(rows_.size());
      rows_.push_back(&request_.safety_rows[row]);
    }
  }
  const auto rows = static_cast<int64_t>(request_.rows.size());
  const int64_t drawn = request_.safety_rows.empty() ? 0 : request_.safety_rows_per_epoch;
  progress_.total_steps = dataset::TotalSteps(rows + drawn, config_.batch_rows, config_.epochs);
  training_sample_ =
      SampleRows(request_.rows, config_.seed,
                 std::clamp(rows / 10, kTrainingSampleLeastRows, kTrainingSampleRows));
  validation_sample_ = SampleRows(request_.validation_rows, config_.seed, kValidationSampleRows);
  digest_ = RequestDigest(request_, model_.config, at::toString(model_.type));

  state_.emplace(model_, config_.lora);
  std::vector<float> flat(state_->layout().size());
  if (!request_.checkpoint.empty()) {
    BALLAST_ASSIGN_OR_RETURN(Checkpoint checkpoint,
                             ReadCheckpoint(request_.checkpoint, state_->layout(), digest_));
    if (checkpoint.step > progress_.total_steps) {
      return MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_CORRUPT",
                       "the checkpoint is beyond the job's last step; start the job again");
    }
    progress_.step = checkpoint.step;
    progress_.trained_tokens = checkpoint.trained_tokens;
    evaluations_ = std::move(checkpoint.evaluations);
    state_->SetMoments(checkpoint.m.data(), checkpoint.v.data());
    flat = std::move(checkpoint.parameters);
  } else if (!request_.initial_adapter.empty()) {
    BALLAST_RETURN_IF_ERROR(ImportAdapter(state_->layout(), request_.initial_adapter, flat.data()));
  } else {
    InitialiseLora(state_->layout(), config_.seed, flat.data());
  }
  state_->SetParameters(flat.data());
  return absl::OkStatus();
}

std::vector<int64_t> TrainJob::SafetyRowsOf(int64_t epoch) const {
  return dataset::DrawSafetyRows(static_cast<int64_t>(request_.safety_rows.size()),
                                 request_.safety_rows_per_epoch, config_.seed, epoch);
}

absl::Status TrainJob::AssignGroups() {
  groups_.assign(rows_.size(), merged_ != nullptr ? 1 : 0);
  if (merged_ == nullptr || config_.vector_policy == VectorPolicy::kAlways) return absl::OkStatus();
  const auto yield = [this] { return Yield(); };
  const int64_t max_tokens = config_.max_tokens_per_micro_batch;
  for (size_t begin = 0; begin < rows_.size(); begin += kRowsScoredAtOnce) {
    const size_t end = std::min(rows_.size(), begin + kRowsScoredAtOnce);
    const std::vector<const TokenRow*> some(rows_.begin() + static_cast<std::ptrdiff_t>(begin),
                                            rows_.begin() + static_cast<std::ptrdiff_t>(end));
    BALLAST_ASSIGN_OR_RETURN(const auto without,
                             learner_.WindowLosses(some, *model_.clean, max_tokens, yield));
    BALLAST_ASSIGN_OR_RETURN(const auto with,
                             learner_.WindowLosses(some, *merged_, max_tokens, yield));
    for (size_t i = 0; i < some.size(); ++i) {
      const double ratio = ExplainedRatio(TargetCount(*some[i]), with[i], without[i]);
      groups_[begin + i] = ratio <= kVectorOnBelow ? 1 : 0;
    }
  }
  return absl::OkStatus();
}

absl::Status TrainJob::TrainEpoch(int64_t epoch) {
  std::vector<int64_t> chosen(request_.rows.size()), lengths;
  std::iota(chosen.begin(), chosen.end(), int64_t{0});
  for (const int64_t row : SafetyRowsOf(epoch)) chosen.push_back(safety_places_[row]);
  std::vector<int> row_groups;
  for (const int64_t row : chosen) {
    lengths.push_back(static_cast<int64_t>(rows_[row]->tokens.size()));
    row_groups.push_back(groups_[row]);
  }
  BALLAST_ASSIGN_OR_RETURN(
      const std::vector<dataset::Step> steps,
      dataset::PlanEpoch(lengths, row_groups, epoch,
                         {.seed = config_.seed,
                          .batch_rows = config_.batch_rows,
                          .max_tokens_per_micro_batch = config_.max_tokens_per_micro_batch}));
  const auto count = static_cast<int64_t>(steps.size());
  // A resumed job starts within an epoch.
  for (int64_t s = progress_.step - epoch * count; s < count; ++s) {
    std::vector<std::vector<const TokenRow*>> micro_batches;
    std::vector<int> groups;
    int64_t tokens = 0;
    for (const dataset::MicroBatch& micro_batch : steps[s].micro_batches) {
      micro_batches.emplace_back();
      for (const int64_t row : micro_batch.rows) {
        micro_batches.back().push_back(rows_[chosen[row]]);
        if (row < static_cast<int64_t>(request_.rows.size())) tokens += lengths[row];
      }
      groups.push_back(micro_batch.group);
    }
    BALLAST_RETURN_IF_ERROR(TrainStep(micro_batches, groups));
    ++progress_.step;
    progress_.trained_tokens += tokens;
    if (callbacks_.progress) callbacks_.progress(progress_);
    BALLAST_RETURN_IF_ERROR(EvaluateIfDue());
    if (config_.checkpoint_every_steps > 0 &&
        progress_.step % config_.checkpoint_every_steps == 0 &&
        progress_.step < progress_.total_steps) {
      SaveCheckpoint();
    }
  }
  return absl::OkStatus();
}

absl::Status TrainJob::TrainStep(const std::vector<std::vector<const TokenRow*>>& micro_batches,
                                 const std::vector<int>& groups) {
  double total_weight = 0;
  for (const auto& rows : micro_batches) {
    for (const TokenRow* row : rows) total_weight += LossWeight(*row);
  }
  state_->ClearGradients();
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    BALLAST_RETURN_IF_ERROR(Yield());
    // A step of rows with weight 0 teaches nothing, but keeps its place in the schedule.
    if (!(total_weight > 0)) continue;
    const PackedBatch batch = Pack(micro_batches[i], model_.device);
    const double loss = learner_.Accumulate(batch, WeightsOf(groups[i]), *state_, total_weight);
    if (!std::isfinite(loss)) return LossNotFinite();
  }
  return state_->Step({.learning_rate = static_cast<float>(
                           LearningRate(config_, progress_.step, progress_.total_steps)),
                       .beta1 = static_cast<float>(config_.adam_beta1),
                       .beta2 = static_cast<float>(config_.adam_beta2),
                       .epsilon = static_cast<float>(config_.adam_epsilon),
                       .weight_decay = static_cast<float>(config_.weight_decay),
                       .step = progress_.step + 1},
                      config_.max_gradient_norm);
}

absl::Status TrainJob::Yield() {
  if (!callbacks_.yield) return absl::OkStatus();
  switch (callbacks_.yield()) {
    case TrainCallbacks::Order::kContinue:
      return absl::OkStatus();
    case TrainCallbacks::Order::kStop:
      return MakeError(absl::StatusCode::kCancelled, "STOPPED", "training was stopped by order");
    case TrainCallbacks::Order::kStopAndCheckpoint:
      break;
  }
  // Parameters and moments change between steps only: this is the state after the last whole step.
  SaveCheckpoint();
  return MakeError(
      absl::StatusCode::kAborted, "STOPPED_WITH_CHECKPOINT",
      "training was stopped by order after a checkpoint; it can be resumed from there");
}

absl::Status TrainJob::EvaluateIfDue() {
  const int64_t step = progress_.step, total = progress_.total_steps;
  int64_t points = config_.evaluation_points;
  if (merged_ != nullptr && config_.vector_policy == VectorPolicy::kByRow) {
    points = std::min(points, total / kStepsApartByRow);
  }
  points = std::max<int64_t>(points, 1);
  const bool due = step == 0 || step * points / total > (step - 1) * points / total;
  // A job resumed from a checkpoint at an evaluation point has it already.
  if (!due || (!evaluations_.empty() && evaluations_.back().step >= step)) return absl::OkStatus();
  const auto yield = [this] { return Yield(); };
  Evaluation evaluation{.step = step};
  // Always the clean base: what leaves the worker is never computed under the vector (S2).
  BALLAST_ASSIGN_OR_RETURN(evaluation.training_loss,
                           learner_.MeanLoss(training_sample_, *model_.clean, &*state_,
                                             config_.max_tokens_per_micro_batch, yield));
  if (!validation_sample_.empty()) {
    BALLAST_ASSIGN_OR_RETURN(evaluation.validation_loss,
                             learner_.MeanLoss(validation_sample_, *model_.clean, &*state_,
                                               config_.max_tokens_per_micro_batch, yield));
  }
  if (!std::isfinite(evaluation.training_loss) ||
      !std::isfinite(evaluation.validation_loss.value_or(0))) {
    return LossNotFinite();
  }
  evaluations_.push_back(evaluation);
  if (callbacks_.evaluated) callbacks_.evaluated(evaluation);
  // Also at the last step: what follows it, the gate, may be stopped.
  if (config_.checkpoint_at_evaluations && step > 0) SaveCheckpoint();
  return absl::OkStatus();
}

void TrainJob::SaveCheckpoint() {
  if (!callbacks_.checkpoint) return;
  const Checkpoint checkpoint{progress_.step,        progress_.trained_tokens,
                              evaluations_,          state_->Parameters(),
                              state_->FirstMoment(), state_->SecondMoment()};
  callbacks_.checkpoint(progress_.step, WriteCheckpoint(state_->layout(), checkpoint, digest_));
}

}  // namespace ballast::worker
