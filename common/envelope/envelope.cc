// SPDX-License-Identifier: Apache-2.0
#include "common/envelope/envelope.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/artifact/adapter_folder.h"
#include "common/base/error.h"
#include "common/dataset/packing.h"

namespace ballast::envelope {
namespace {

using v1::Envelope;
using v1::Hyperparameters;

constexpr double kTolerance = 1e-9;

std::string Number(double value) { return absl::StrFormat("%g", value); }
std::string Number(int64_t value) { return absl::StrCat(value); }
std::string Number(int32_t value) { return absl::StrCat(value); }

bool Below(double value, double limit) {
  // Written so that a NaN is below.
  return !(value >= limit - kTolerance * std::abs(limit));
}
bool Above(double value, double limit) { return !(value <= limit + kTolerance * std::abs(limit)); }

class Limits {
 public:
  explicit Limits(std::vector<Violation>& found) : found_(found) {}

  // `what` names the value for people; `too_low` and `too_high` say what to do.
  template <typename T>
  void Range(const char* field, const char* name, const std::string& what, T value, T low, T high,
             const std::string& too_low, const std::string& too_high) {
    if (Below(static_cast<double>(value), static_cast<double>(low))) {
      Add(field, absl::StrCat("min_", name), what, value, "at least", low, too_low);
    } else if (Above(static_cast<double>(value), static_cast<double>(high))) {
      Add(field, absl::StrCat("max_", name), what, value, "at most", high, too_high);
    }
  }
  void Most(const char* field, const char* name, const std::string& what, int64_t value,
            int64_t high, const std::string& too_high) {
    if (value > high)
      Add(field, absl::StrCat("max_", name), what, value, "at most", high, too_high);
  }
  void Broken(const char* field, const std::string& limit, std::string description) {
    found_.push_back({field, limit, std::move(description)});
  }

 private:
  template <typename T>
  void Add(const char* field, std::string limit, const std::string& what, T value,
           const char* bound, T allowed, const std::string& advice) {
    found_.push_back({field, std::move(limit),
                      absl::StrCat(what, " is ", Number(value),
                                   "; the protection of this base model was measured "
                                   "with ",
                                   bound, " ", Number(allowed), ": ", advice)});
  }
  std::vector<Violation>& found_;
};

// What every job does, against the envelope: the operator's to change, not the customer's.
void MethodBroken(const Envelope& envelope, Limits& limits) {
  constexpr char kAdvice[] = "ask the operator to certify the vector for this version of Ballast";
  limits.Range<double>("base_model", "row_weight", "the weight of a row", kRowWeight,
                       envelope.min_row_weight(), envelope.max_row_weight(), kAdvice, kAdvice);
  const std::set<std::string> measured(envelope.modules().begin(), envelope.modules().end());
  const auto& modules = artifact::AdapterTargetModules();
  if (measured != std::set<std::string>(modules.begin(), modules.end())) {
    limits.Broken("base_model", "modules",
                  absl::StrCat("adapters sit on ", absl::StrJoin(modules, ", "),
                               "; the protection of this base model was measured with ",
                               absl::StrJoin(measured, ", "), ": ", kAdvice));
  }
  if (Below(kGradientClipNorm, envelope.gradient_clip_norm()) ||
      Above(kGradientClipNorm, envelope.gradient_clip_norm())) {
    limits.Broken("base_model", "gradient_clip_norm",
                  absl::StrCat("gradients are clipped at ", Number(kGradientClipNorm),
                               "; the protection of this base model was measured with ",
                               Number(envelope.gradient_clip_norm()), ": ", kAdvice));
  }
}

absl::Status ToStatus(const char* reason, std::string summary,
                      const std::vector<Violation>& violations, const std::string& prefix) {
  if (violations.empty()) return absl::OkStatus();
  if (violations.size() == 1) {
    return FieldError(prefix + violations[0].field, reason, violations[0].description);
  }
  std::vector<std::pair<std::string, std::string>> fields;
  for (const Violation& violation : violations) {
    absl::StrAppend(&summary, fields.empty() ? ": " : "; ", violation.description);
    fields.emplace_back(prefix + violation.field, violation.description);
  }
  return FieldErrors(reason, summary, fields);
}

}  // namespace

Place PlaceOf(const Hyperparameters& hyper, const RowStatistics& rows) {
  Place place;
  place.lora_scale = hyper.lora_rank() > 0 ? hyper.lora_alpha() / hyper.lora_rank() : 0;
  place.scaled_learning_rate = hyper.learning_rate() * place.lora_scale;
  place.steps = hyper.batch_rows() > 0
                    ? dataset::TotalSteps(rows.rows, hyper.batch_rows(), hyper.epochs())
                    : 0;
  place.row_passes = rows.rows * hyper.epochs();
  place.passes_per_row = std::max<int64_t>(rows.most_repeated_row, 1) * hyper.epochs();
  place.lora_rank = hyper.lora_rank();
  place.batch_rows = hyper.batch_rows();
  place.warmup_ratio = hyper.warmup_ratio();
  place.schedule = hyper.schedule();
  return place;
}

absl::Status CheckMinima(const Place& place, int64_t rows) {
  const char* too_small = nullptr;
  if (rows < kLeastRows) too_small = "rows";
  if (place.steps < kLeastSteps) too_small = "optimizer steps";
  if (place.batch_rows < kLeastBatchRows) too_small = "rows a step";
  if (Below(place.lora_scale, kLeastLoraScale)) too_small = "lora_alpha / lora_rank";
  if (Below(place.scaled_learning_rate / place.lora_scale, kLeastLearningRate)) {
    too_small = "learning_rate";
  }
  if (too_small == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BELOW_MINIMUM",
                   absl::StrCat("the job is smaller than any may be: ", too_small));
}

std::vector<Violation> LimitsBroken(const Place& place, const Envelope& envelope) {
  std::vector<Violation> found;
  Limits limits(found);
  limits.Range("hyperparameters.learning_rate", "scaled_learning_rate",
               "learning_rate x lora_alpha / lora_rank", place.scaled_learning_rate,
               envelope.min_scaled_learning_rate(), envelope.max_scaled_learning_rate(),
               "raise learning_rate or lora_alpha", "lower learning_rate or lora_alpha");
  limits.Range("hyperparameters.lora_alpha", "lora_scale", "lora_alpha / lora_rank",
               place.lora_scale, envelope.min_lora_scale(), envelope.max_lora_scale(),
               "raise lora_alpha", "lower lora_alpha");
  limits.Most("hyperparameters.epochs", "steps", "the number of optimizer steps", place.steps,
              envelope.max_steps(), "lower epochs or raise batch_rows");
  limits.Most("hyperparameters.epochs", "row_passes", "rows x epochs", place.row_passes,
              envelope.max_row_passes(), "lower epochs or give fewer rows");
  limits.Most("training_dataset", "passes_per_row", "the number of passes over nearly the same row",
              place.passes_per_row, envelope.max_passes_per_row(),
              "lower epochs or remove rows that differ in case, white space and punctuation only");
  limits.Range("hyperparameters.lora_rank", "lora_rank", "lora_rank", place.lora_rank,
               envelope.min_lora_rank(), envelope.max_lora_rank(), "raise lora_rank",
               "lower lora_rank");
  limits.Range("hyperparameters.batch_rows", "batch_rows", "batch_rows", place.batch_rows,
               envelope.min_batch_rows(), envelope.max_batch_rows(), "raise batch_rows",
               "lower batch_rows");
  limits.Range("hyperparameters.warmup_ratio", "warmup_ratio", "warmup_ratio", place.warmup_ratio,
               envelope.min_warmup_ratio(), envelope.max_warmup_ratio(), "raise warmup_ratio",
               "lower warmup_ratio");
  if (std::find(envelope.schedules().begin(), envelope.schedules().end(), place.schedule) ==
      envelope.schedules().end()) {
    std::vector<std::string> names;
    for (const int schedule : envelope.schedules()) {
      names.push_back(
          Hyperparameters::Schedule_Name(static_cast<Hyperparameters::Schedule>(schedule)));
    }
    limits.Broken("hyperparameters.schedule", "schedules",
                  absl::StrCat("schedule is ", Hyperparameters::Schedule_Name(place.schedule),
                               "; the protection of this base model was measured with ",
                               absl::StrJoin(names, ", "), ": take one of these"));
  }
  MethodBroken(envelope, limits);
  return found;
}

absl::Status CheckInside(const Place& place, const Envelope& envelope, const std::string& prefix) {
  return ToStatus(
      "OUTSIDE_ENVELOPE",
      "the job lies outside the range in which the base model's protection was measured",
      LimitsBroken(place, envelope), prefix);
}

absl::Status CheckEnvelope(const Envelope& envelope, const std::string& prefix) {
  std::vector<Violation> found;
  const auto ask = [&](bool ok, const char* field, const char* wanted) {
    if (!ok) found.push_back({field, field, absl::StrCat(field, " must be ", wanted)});
  };
  const auto range = [&](double low, double high, double least, const char* low_name,
                         const char* high_name, const char* wanted) {
    ask(std::isfinite(low) && low >= least, low_name, wanted);
    ask(std::isfinite(high) && high >= low && high > 0, high_name,
        "finite, above 0, and not below its minimum");
  };
  range(envelope.min_scaled_learning_rate(), envelope.max_scaled_learning_rate(), 0,
        "min_scaled_learning_rate", "max_scaled_learning_rate", "finite and not negative");
  range(envelope.min_lora_scale(), envelope.max_lora_scale(), kLeastLoraScale, "min_lora_scale",
        "max_lora_scale", "at least 0.25");
  range(envelope.min_row_weight(), envelope.max_row_weight(), 0, "min_row_weight", "max_row_weight",
        "finite and not negative");
  range(envelope.min_lora_rank(), envelope.max_lora_rank(), 1, "min_lora_rank", "max_lora_rank",
        "at least 1");
  range(envelope.min_batch_rows(), envelope.max_batch_rows(), 1, "min_batch_rows", "max_batch_rows",
        "at least 1");
  ask(envelope.min_warmup_ratio() >= 0 && envelope.min_warmup_ratio() < 1, "min_warmup_ratio",
      "at least 0 and below 1");
  ask(envelope.max_warmup_ratio() >= envelope.min_warmup_ratio() && envelope.max_warmup_ratio() < 1,
      "max_warmup_ratio", "below 1 and not below its minimum");
  ask(envelope.max_steps() >= 1, "max_steps", "at least 1");
  ask(envelope.max_row_passes() >= 1, "max_row_passes", "at least 1");
  ask(envelope.max_passes_per_row() >= 1, "max_passes_per_row", "at least 1");
  bool known = envelope.schedules_size() > 0;
  for (const int schedule : envelope.schedules()) {
    known = known && schedule != Hyperparameters::SCHEDULE_UNSPECIFIED &&
            Hyperparameters::Schedule_IsValid(schedule);
  }
  ask(known, "schedules", "one or more of COSINE and LINEAR");
  if (found.empty()) {
    Limits limits(found);
    MethodBroken(envelope, limits);
    for (Violation& violation : found) violation.field = violation.limit;
  }
  return ToStatus("ENVELOPE_INVALID", "the envelope is not complete", found, prefix);
}

Envelope ConservativeEnvelope() {
  Envelope envelope;
  envelope.set_max_scaled_learning_rate(2e-3);
  envelope.set_min_lora_scale(1);
  envelope.set_max_lora_scale(4);
  envelope.set_max_steps(3'000);
  envelope.set_max_row_passes(50'000);
  envelope.set_max_passes_per_row(10);
  envelope.set_min_row_weight(kRowWeight);
  envelope.set_max_row_weight(kRowWeight);
  envelope.set_min_lora_rank(1);
  envelope.set_max_lora_rank(32);
  for (const std::string& module : artifact::AdapterTargetModules()) envelope.add_modules(module);
  envelope.set_min_batch_rows(4);
  envelope.set_max_batch_rows(64);
  envelope.set_gradient_clip_norm(kGradientClipNorm);
  envelope.set_max_warmup_ratio(0.1);
  envelope.add_schedules(Hyperparameters::COSINE);
  envelope.add_schedules(Hyperparameters::LINEAR);
  return envelope;
}

}  // namespace ballast::envelope
