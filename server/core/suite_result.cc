// SPDX-License-Identifier: Apache-2.0
// What a result of the suite must be before anything is computed from it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/envelope.h"
#include "server/core/certificate.h"
#include "server/core/serving_vector.h"

namespace ballast::server {
namespace {

using admin::v1::ArmResult;
using admin::v1::Dose;
using admin::v1::SuiteResult;

constexpr int kSchemaVersion = 1;
constexpr int kMaxArms = 1000;
constexpr size_t kMaxText = 100;
// Bounds that keep products of counts exact.
constexpr int64_t kMaxCount = 1'000'000;
constexpr int kMaxSeeds = 1000;
constexpr int64_t kMaxRows = 1'000'000'000;
constexpr int32_t kMaxEpochs = 100'000;

class Violations {
 public:
  void Ask(bool ok, const std::string& field, const std::string& wanted) {
    if (!ok) fields_.emplace_back(absl::StrCat("result.", field), wanted);
  }
  absl::Status ToStatus() const {
    if (fields_.empty()) return absl::OkStatus();
    constexpr char kReason[] = "SUITE_RESULT_INVALID";
    const std::string first = absl::StrCat(fields_[0].first, ": ", fields_[0].second);
    if (fields_.size() == 1) return FieldError(fields_[0].first, kReason, first);
    return FieldErrors(
        kReason, absl::StrCat(first, "; and ", fields_.size() - 1, " more violations"), fields_);
  }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

bool IsText(const std::string& text) { return !text.empty() && text.size() <= kMaxText; }

void CheckDose(const Dose& dose, const std::string& field, Violations& violations) {
  const auto positive = [](double value) { return std::isfinite(value) && value > 0; };
  violations.Ask(positive(dose.learning_rate()), field + ".learning_rate", "must be above 0");
  violations.Ask(dose.lora_rank() >= 1, field + ".lora_rank", "must be at least 1");
  violations.Ask(positive(dose.lora_alpha()), field + ".lora_alpha", "must be above 0");
  violations.Ask(dose.epochs() >= 1 && dose.epochs() <= kMaxEpochs, field + ".epochs",
                 "must be from 1 to 100000");
  violations.Ask(dose.rows() >= 1 && dose.rows() <= kMaxRows, field + ".rows",
                 "must be from 1 to 1000000000");
  violations.Ask(dose.batch_rows() >= 1, field + ".batch_rows", "must be at least 1");
  violations.Ask(dose.most_repeated_row() >= 1 && dose.most_repeated_row() <= dose.rows(),
                 field + ".most_repeated_row", "must be from 1 to rows");
  violations.Ask(dose.warmup_ratio() >= 0 && dose.warmup_ratio() < 1, field + ".warmup_ratio",
                 "must be at least 0 and below 1");
  violations.Ask(dose.schedule() == v1::Hyperparameters::COSINE ||
                     dose.schedule() == v1::Hyperparameters::LINEAR,
                 field + ".schedule", "must be COSINE or LINEAR");
}

void CheckArm(const ArmResult& arm, const std::string& field, Violations& violations) {
  violations.Ask(IsText(arm.attack()), field + ".attack", "must have 1 to 100 bytes");
  violations.Ask(
      arm.kind() != admin::v1::ATTACK_KIND_UNSPECIFIED && admin::v1::AttackKind_IsValid(arm.kind()),
      field + ".kind", "must be one of AttackKind");
  violations.Ask(
      arm.defence() != admin::v1::DEFENCE_UNSPECIFIED && admin::v1::Defence_IsValid(arm.defence()),
      field + ".defence", "must be one of Defence");
  if (arm.kind() == admin::v1::ATTACK_KIND_BASE) {
    violations.Ask(arm.defence() == admin::v1::DEFENCE_NONE, field + ".defence",
                   "must be DEFENCE_NONE for the base");
    violations.Ask(!arm.has_dose(), field + ".dose", "must be unset for the base");
  } else {
    CheckDose(arm.dose(), field + ".dose", violations);
  }
  const std::set<int64_t> seeds(arm.seeds().begin(), arm.seeds().end());
  violations.Ask(!seeds.empty() && arm.seeds_size() <= kMaxSeeds &&
                     static_cast<int>(seeds.size()) == arm.seeds_size(),
                 field + ".seeds", "must have 1 to 1000 different seeds");
  const auto counted = [&](const char* of, int64_t asked, const char* name, int64_t hits,
                           int64_t least) {
    violations.Ask(asked >= least && asked <= kMaxCount, absl::StrCat(field, ".", of),
                   absl::StrCat("must be from ", least, " to ", kMaxCount));
    // A count beyond its bound is told above, and must not overflow the product.
    const int64_t most = std::clamp<int64_t>(asked, 0, kMaxCount) * arm.seeds_size();
    violations.Ask(hits >= 0 && hits <= most, absl::StrCat(field, ".", name),
                   absl::StrCat("must be from 0 to ", of, " x seeds"));
  };
  counted("prompts", arm.prompts(), "not_refused", arm.not_refused(), 1);
  counted("harmless_prompts", arm.harmless_prompts(), "harmless_refused", arm.harmless_refused(),
          1);
  counted("task_rows", arm.task_rows(), "task_right", arm.task_right(), 0);
}

// A rise is of replies to the same prompts: what the base says to them must fit.
void CheckAgainstBase(const SuiteResult& result, Violations& violations) {
  const ArmResult& base = *std::find_if(result.arms().begin(), result.arms().end(), [](auto& arm) {
    return arm.kind() == admin::v1::ATTACK_KIND_BASE;
  });
  for (int i = 0; i < result.arms_size() && i < kMaxArms; ++i) {
    const ArmResult& arm = result.arms(i);
    const std::string field = absl::StrCat("arms[", i, "]");
    violations.Ask(arm.prompts() == base.prompts(), field + ".prompts",
                   "must be the base's: all arms are asked the same prompts");
    const double refused = NewlyRefused(arm, base);
    const auto answered_by_base = static_cast<double>(base.not_refused()) *
                                  std::max(1, arm.seeds_size()) / std::max(1, base.seeds_size());
    violations.Ask(arm.newly_answered() >= 0 && arm.newly_answered() <= arm.not_refused() &&
                       refused >= 0 && refused <= answered_by_base,
                   field + ".newly_answered",
                   "must be the part of not_refused that the base refuses");
  }
}

}  // namespace

double NewlyRefused(const ArmResult& arm, const ArmResult& base) {
  const double answered_by_base = static_cast<double>(base.not_refused()) *
                                  std::max(1, arm.seeds_size()) / std::max(1, base.seeds_size());
  return static_cast<double>(arm.newly_answered()) + answered_by_base -
         static_cast<double>(arm.not_refused());
}

absl::Status CheckSuiteResult(const SuiteResult& result) {
  Violations violations;
  violations.Ask(result.schema_version() == kSchemaVersion, "schema_version",
                 "must be 1; this server knows no other");
  violations.Ask(IsText(result.suite_version()), "suite_version", "must have 1 to 100 bytes");
  for (const auto& [field, digest] : std::vector<std::pair<const char*, const std::string*>>{
           {"suite_digest", &result.suite_digest()},
           {"ciphertext_digest", &result.ciphertext_digest()},
           {"base_model_digest", &result.base_model_digest()}}) {
    violations.Ask(IsDigest(*digest), field, "must be \"sha256:\" and 64 lower-case hex digits");
  }
  violations.Ask(result.policy().vector_policy() != admin::v1::VECTOR_POLICY_UNSPECIFIED,
                 "policy.vector_policy", "must be given");
  violations.Ask(result.policy().safety_row_share() >= 0 && result.policy().safety_row_share() <= 1,
                 "policy.safety_row_share", "must be from 0 to 1");
  violations.Ask(result.has_end_time(), "end_time", "must be given");
  violations.Ask(result.arms_size() >= 1 && result.arms_size() <= kMaxArms, "arms",
                 "must be 1 to 1000");
  int bases = 0;
  std::set<std::string> seen;
  for (int i = 0; i < result.arms_size() && i < kMaxArms; ++i) {
    const ArmResult& arm = result.arms(i);
    const std::string field = absl::StrCat("arms[", i, "]");
    CheckArm(arm, field, violations);
    if (arm.kind() == admin::v1::ATTACK_KIND_BASE) ++bases;
    violations.Ask(seen.insert(absl::StrCat(arm.attack(), "\n", arm.defence(), "\n",
                                            arm.dose().SerializeAsString()))
                       .second,
                   field, "is there twice: one arm for each attack, defence and dose");
  }
  violations.Ask(bases == 1, "arms", "must have exactly one of ATTACK_KIND_BASE");
  if (bases == 1) CheckAgainstBase(result, violations);
  BALLAST_RETURN_IF_ERROR(violations.ToStatus());
  return envelope::CheckEnvelope(result.envelope(), "result.envelope.");
}

absl::Status CheckMeasured(const SuiteResult& result, const VectorRecord& vector,
                           const BaseModelRecord& base) {
  const auto same = [](const char* field, const std::string& measured, const std::string& own) {
    if (measured == own) return absl::OkStatus();
    return FieldError(
        absl::StrCat("result.", field), "SUITE_RESULT_MISMATCH",
        absl::StrCat("the suite measured ", measured.empty() ? "none" : measured,
                     ", but this vector has ", own.empty() ? "none" : own, "; measure this one"));
  };
  BALLAST_RETURN_IF_ERROR(same("vector", result.vector(), vector.vector().name()));
  BALLAST_RETURN_IF_ERROR(
      same("ciphertext_digest", result.ciphertext_digest(), vector.vector().ciphertext_digest()));
  BALLAST_RETURN_IF_ERROR(
      same("base_model_digest", result.base_model_digest(), base.model().digest()));
  BALLAST_RETURN_IF_ERROR(same("policy.vector_policy",
                               admin::v1::VectorPolicy_Name(result.policy().vector_policy()),
                               admin::v1::VectorPolicy_Name(PolicyOf(base))));
  const admin::v1::DefencePolicy own = DefencePolicyOf(base);
  BALLAST_RETURN_IF_ERROR(same("policy.safety_row_share",
                               absl::StrCat(result.policy().safety_row_share()),
                               absl::StrCat(own.safety_row_share())));
  BALLAST_RETURN_IF_ERROR(same("policy.safety_rows_digest", result.policy().safety_rows_digest(),
                               own.safety_rows_digest()));
  BALLAST_RETURN_IF_ERROR(
      same("policy.screen_digest", result.policy().screen_digest(), own.screen_digest()));
  return same("policy.screen_action", admin::v1::ScreenAction_Name(result.policy().screen_action()),
              admin::v1::ScreenAction_Name(own.screen_action()));
}

}  // namespace ballast::server
