// SPDX-License-Identifier: Apache-2.0
#include "client/cli/certificate_view.h"

#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "common/envelope/envelope.h"

namespace ballast::cli {
namespace {

using admin::v1::Arm;
using admin::v1::Certificate;
using admin::v1::Share;

void AddLine(std::string& text, std::string_view label, const std::string& value) {
  if (value.empty()) return;
  absl::StrAppend(&text, absl::StrFormat("%-14s", std::string(label)), Printable(value), "\n");
}

std::string Percent(double value) { return absl::StrFormat("%.1f %%", 100 * value); }

std::string WithInterval(const Share& share) {
  return absl::StrFormat("%s (%.1f to %.1f)", Percent(share.value()), 100 * share.low(),
                         100 * share.high());
}

std::string Range(double low, double high) {
  return low == high ? absl::StrFormat("%g", high) : absl::StrFormat("%g to %g", low, high);
}

// A name of an enum without the part that all of them share.
std::string Short(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name;
}

std::string PolicyName(admin::v1::VectorPolicy policy) {
  return Short(admin::v1::VectorPolicy_Name(policy), "VECTOR_POLICY_");
}

std::string DoseOf(const admin::v1::Dose& dose) {
  return absl::StrFormat("%g x %d", dose.learning_rate(), dose.epochs());
}

}  // namespace

std::string DescribeVectorReport(const admin::v1::VectorReport& report) {
  const auto line = [](const char* rows, double without, double with) {
    return absl::StrFormat("  %-16s %8.4f without the vector  %8.4f with it\n", rows, without,
                           with);
  };
  std::string trials;
  if (report.trials_size() > 0) {
    Table table(
        {"", "LEARNING RATE", "EPOCHS", "RANK", "KL", "PROHIBITED LOSS LEFT", "BENIGN LOSS ADDED"});
    for (const admin::v1::RecipeTrial& trial : report.trials()) {
      const bool worked = trial.has_prohibited_loss_ratio() && trial.has_benign_loss_added();
      table.AddRow(
          {trial.chosen() ? "chosen" : "", absl::StrFormat("%g", trial.learning_rate()),
           absl::StrCat(trial.epochs()), absl::StrCat(trial.lora_rank()),
           absl::StrFormat("%.3g", trial.kl_weight()),
           worked ? absl::StrFormat("%.1f %%", 100 * trial.prohibited_loss_ratio()) : "broke down",
           worked ? absl::StrFormat("%.4f", trial.benign_loss_added()) : ""});
    }
    trials = absl::StrCat("Recipes that were tried, judged by rows left out:\n", table.Render());
  }
  return absl::StrCat(
      trials, "Mean loss per supervised token (nats), on the rows it was trained on:\n",
      line("prohibited rows", report.prohibited_loss_without(), report.prohibited_loss_with()),
      line("benign rows", report.benign_loss_without(), report.benign_loss_with()),
      "A working vector is low on prohibited rows and leaves benign rows unchanged.\n");
}

std::string DescribeCertified(const admin::v1::Vector& vector) {
  if (vector.state() != admin::v1::Vector::ACTIVE) return "-";
  if (vector.certified()) return "yes";
  if (!vector.serving_problem().empty()) return "no, and it serves no job";
  return absl::StrCat("no: ", vector.activation().reason());
}

std::string DescribeVector(const admin::v1::Vector& vector) {
  std::string text;
  AddLine(text, "name", vector.name());
  AddLine(text, "base model", vector.base_model());
  AddLine(text, "version", absl::StrCat(vector.version()));
  AddLine(text, "state", admin::v1::Vector::State_Name(vector.state()));
  AddLine(text, "certified", DescribeCertified(vector));
  if (vector.has_activation()) {
    AddLine(text, "activated",
            absl::StrCat(
                FormatTime(vector.activation().time()), " by ",
                vector.activation().actor().empty() ? "an operator" : vector.activation().actor()));
  }
  AddLine(text, "problem", vector.serving_problem());
  AddLine(text, "error", vector.error_message());
  AddLine(text, "ciphertext", vector.ciphertext_digest());
  AddLine(text, "base digest", vector.base_digest());
  AddLine(text, "created", FormatTime(vector.create_time()));
  if (vector.has_report()) absl::StrAppend(&text, DescribeVectorReport(vector.report()));
  return text;
}

std::string DescribeEnvelope(const v1::Envelope& envelope, const v1::FineTuningJob* job) {
  std::vector<std::string> header = {"ENVELOPE", "LIMITS"};
  if (job != nullptr) header.emplace_back("THIS JOB");
  Table table(header);
  const auto row = [&](const char* name, const std::string& limits, const std::string& own) {
    std::vector<std::string> cells = {name, limits};
    if (job != nullptr) cells.push_back(own);
    table.AddRow(std::move(cells));
  };
  static const v1::FineTuningJob& none = *new v1::FineTuningJob();
  const v1::Hyperparameters& how = (job == nullptr ? none : *job).hyperparameters();
  const v1::Estimate& estimate = (job == nullptr ? none : *job).estimate();
  row("learning rate x alpha / rank",
      Range(envelope.min_scaled_learning_rate(), envelope.max_scaled_learning_rate()),
      absl::StrFormat("%g", estimate.scaled_learning_rate()));
  row("LoRA alpha / rank", Range(envelope.min_lora_scale(), envelope.max_lora_scale()),
      absl::StrFormat("%g", how.lora_rank() > 0 ? how.lora_alpha() / how.lora_rank() : 0));
  // Without the platform's safety rows, as admission counts them.
  row("steps", absl::StrCat("at most ", FormatCount(envelope.max_steps())),
      FormatCount(envelope::PlaceOf(how, {estimate.rows(), 1}).steps));
  row("rows x epochs", absl::StrCat("at most ", FormatCount(envelope.max_row_passes())),
      FormatCount(estimate.row_passes()));
  row("passes over a row", absl::StrCat("at most ", FormatCount(envelope.max_passes_per_row())),
      FormatCount(estimate.passes_per_row()));
  row("LoRA rank", Range(envelope.min_lora_rank(), envelope.max_lora_rank()),
      absl::StrCat(how.lora_rank()));
  row("rows a step", Range(envelope.min_batch_rows(), envelope.max_batch_rows()),
      absl::StrCat(how.batch_rows()));
  row("warm-up ratio", Range(envelope.min_warmup_ratio(), envelope.max_warmup_ratio()),
      absl::StrFormat("%g", how.warmup_ratio()));
  std::vector<std::string> schedules;
  for (const int schedule : envelope.schedules()) {
    schedules.push_back(
        v1::Hyperparameters::Schedule_Name(static_cast<v1::Hyperparameters::Schedule>(schedule)));
  }
  row("schedule", absl::StrJoin(schedules, ", "),
      v1::Hyperparameters::Schedule_Name(how.schedule()));
  return table.Render();
}

std::string DescribeCertificate(const Certificate& certificate) {
  std::string text;
  AddLine(text, "vector", absl::StrCat(certificate.vector(), ", version ", certificate.version()));
  AddLine(text, "ciphertext", certificate.ciphertext_digest());
  AddLine(text, "base digest", certificate.base_model_digest());
  AddLine(text, "policy", PolicyName(certificate.policy().vector_policy()));
  AddLine(text, "suite",
          absl::StrCat(certificate.suite_version(), " ", certificate.suite_digest()));
  AddLine(text, "measured", FormatTime(certificate.measure_time()));
  AddLine(text, "certified", FormatTime(certificate.create_time()));
  AddLine(text, "verdict", certificate.passed() ? "passed" : "FAILED");

  Table criteria({"CRITERION", "MET", "WHAT"});
  for (const auto& criterion : certificate.criteria()) {
    criteria.AddRow({criterion.name(), criterion.passed() ? "yes" : "NO", criterion.message()});
  }
  absl::StrAppend(&text, "\n", criteria.Render());

  Table arms({"ATTACK", "KIND", "DEFENCE", "RATE x EPOCHS", "INSIDE", "NOT REFUSED (95 %)",
              "ABOVE BASE (95 %)", "UTILITY", "OVER-REFUSAL", "SEEDS"});
  for (const Arm& arm : certificate.arms()) {
    const auto& counts = arm.counts();
    arms.AddRow({counts.attack(), Short(admin::v1::AttackKind_Name(counts.kind()), "ATTACK_KIND_"),
                 Short(admin::v1::Defence_Name(counts.defence()), "DEFENCE_"),
                 counts.has_dose() ? DoseOf(counts.dose()) : "-",
                 arm.inside_envelope() ? "yes" : "no", WithInterval(arm.success()),
                 WithInterval(arm.rise()),
                 arm.has_utility_ratio() ? absl::StrFormat("%.2f", arm.utility_ratio()) : "-",
                 Percent(arm.over_refusal().value()), absl::StrCat(counts.seeds_size())});
  }
  absl::StrAppend(&text, "\n", arms.Render(),
                  "\nResidual risk, what admission cannot see (attack success above the base):\n");
  const auto& risk = certificate.residual_risk();
  AddLine(text, "  unseen",
          risk.has_attack_success_unseen_max() ? Percent(risk.attack_success_unseen_max())
                                               : "not measured");
  AddLine(text, "  other",
          risk.has_attack_success_other_max() ? Percent(risk.attack_success_other_max())
                                              : "not measured");
  absl::StrAppend(&text, "\n", DescribeEnvelope(certificate.envelope(), nullptr));
  return text;
}

}  // namespace ballast::cli
