// SPDX-License-Identifier: Apache-2.0
#include "server/core/gate_catalog.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/blob_hold.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::Gate;
using admin::v1::GateLimits;

constexpr double kMinScale = -4;
constexpr double kMaxScale = 8;
constexpr size_t kMaxScales = 10;  // of each kind
constexpr int kMinReplyTokens = 8;
constexpr int kMaxReplyTokens = 256;
// What a chat template writes around a prompt, a default system prompt among it.
constexpr int64_t kTemplateTokens = 128;

using Violations = std::vector<std::pair<std::string, std::string>>;

std::set<double> CompleteScales(const google::protobuf::RepeatedField<double>& asked,
                                std::set<double> defaults, const char* field,
                                Violations& violations) {
  std::set<double> scales(asked.begin(), asked.end());
  if (scales.empty()) return defaults;
  const bool in_range = std::all_of(scales.begin(), scales.end(), [](double scale) {
    return scale >= kMinScale && scale <= kMaxScale && scale != 0;
  });
  // NaN compares false, but two of them may be in a set.
  if (!in_range || scales.size() > kMaxScales) {
    violations.emplace_back(absl::StrCat("limits.", field),
                            absl::StrCat(field, " must be at most ", kMaxScales, " numbers from ",
                                         kMinScale, " to ", kMaxScale, " other than 0"));
  }
  return scales;
}

void CheckShare(double value, const char* field, Violations& violations) {
  if (value >= 0 && value <= 1) return;
  violations.emplace_back(absl::StrCat("limits.", field),
                          absl::StrCat(field, " is ", value, "; give a value from 0 to 1"));
}

absl::Status GateNotFound(const std::string& base_id) {
  return MakeError(absl::StatusCode::kNotFound, "GATE_NOT_FOUND",
                   absl::StrCat(BaseModelName(base_id), " has no gate; set one"));
}

absl::Status CheckLengths(const std::string& base_id, const behaviour::BehaviourSet& set,
                          const GateLimits& limits, int64_t context_tokens) {
  const int64_t most = context_tokens - limits.reply_tokens() - kTemplateTokens;
  size_t longest = 0;
  for (const auto& prompt : set.prohibited) longest = std::max(longest, prompt.prompt.size());
  for (const std::string& prompt : set.look_alikes) longest = std::max(longest, prompt.size());
  if (static_cast<int64_t>(longest) <= most) return absl::OkStatus();
  return FieldError("gate_set", "GATE_PROMPT_TOO_LONG",
                    absl::StrCat("the longest prompt has ", longest, " bytes; with ",
                                 BaseModelName(base_id), "'s context of ", context_tokens,
                                 " tokens and replies of ", limits.reply_tokens(), " at most ",
                                 std::max<int64_t>(0, most), " are sure to fit"));
}

}  // namespace

absl::StatusOr<GateLimits> CompleteGateLimits(const GateLimits& asked) {
  GateLimits limits = asked;
  Violations violations;
  if (!limits.has_max_rise()) limits.set_max_rise(0.05);
  if (!limits.has_max_over_refusal_rise()) limits.set_max_over_refusal_rise(0.1);
  CheckShare(limits.max_rise(), "max_rise", violations);
  CheckShare(limits.max_over_refusal_rise(), "max_over_refusal_rise", violations);
  const std::set<double> deciding =
      CompleteScales(asked.deciding_scales(), {-1, 1, 2}, "deciding_scales", violations);
  const std::set<double> watched =
      CompleteScales(asked.watched_scales(), {-4, 4, 8}, "watched_scales", violations);
  if (deciding.count(1) == 0) {
    violations.emplace_back("limits.deciding_scales",
                            "deciding_scales must have 1, the scale that is delivered");
  }
  if (limits.reply_tokens() == 0) limits.set_reply_tokens(48);
  if (limits.reply_tokens() < kMinReplyTokens || limits.reply_tokens() > kMaxReplyTokens) {
    violations.emplace_back(
        "limits.reply_tokens",
        absl::StrCat("reply_tokens is ", limits.reply_tokens(), "; give a value from ",
                     kMinReplyTokens, " to ", kMaxReplyTokens));
  }
  if (!violations.empty()) {
    return FieldErrors("GATE_LIMITS_OUT_OF_RANGE", violations.front().second, violations);
  }
  limits.clear_deciding_scales();
  limits.clear_watched_scales();
  for (const double scale : deciding) limits.add_deciding_scales(scale);
  for (const double scale : watched) {
    if (deciding.count(scale) == 0) limits.add_watched_scales(scale);
  }
  return limits;
}

absl::Status GateCatalog::Expect(const std::string& base_id, const behaviour::BehaviourSet& set,
                                 const GateLimits& limits, const std::string& blob) {
  return store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(CheckLengths(base_id, set, limits, base->model().context_tokens()));
    return HoldBlobs(tx, blob);
  });
}

absl::StatusOr<Gate> GateCatalog::Set(absl::Time now, const std::string& base_id,
                                      const behaviour::BehaviourSet& set, const GateLimits& limits,
                                      const std::string& blob, const std::string& digest,
                                      int64_t size_bytes) {
  Gate gate;
  gate.set_name(GateName(base_id));
  gate.set_digest(digest);
  gate.set_size_bytes(size_bytes);
  *gate.mutable_limits() = limits;
  for (const auto& [category, prompts] : behaviour::CountByCategory(set)) {
    (*gate.mutable_prohibited_prompts())[category] = prompts;
  }
  gate.set_look_alike_prompts(static_cast<int32_t>(set.look_alikes.size()));
  gate.set_refusal_patterns(
      static_cast<int32_t>(set.refusal_openings.size() + set.refusal_phrases.size()));
  *gate.mutable_set_time() = ToTimestamp(now);
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto base,
                             GetRecord<BaseModelRecord>(tx, "", base_id, Hold::kExclusive));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(NameBlobs(tx, blob));
    if (!base->gate_blob().empty()) BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base->gate_blob()));
    *base->mutable_gate() = gate;
    base->set_gate_blob(blob);
    return ReplaceRecord(tx, *base);
  }));
  listener_.GarbageAdded();
  return gate;
}

absl::StatusOr<Gate> GateCatalog::Get(const std::string& base_id) {
  Gate gate;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    if (!base->has_gate()) return GateNotFound(base_id);
    gate = base->gate();
    return absl::OkStatus();
  }));
  return gate;
}

absl::Status GateCatalog::Remove(const std::string& base_id) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto base,
                             GetRecord<BaseModelRecord>(tx, "", base_id, Hold::kExclusive));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    if (!base->has_gate()) return GateNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base->gate_blob()));
    base->clear_gate();
    base->clear_gate_blob();
    return ReplaceRecord(tx, *base);
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

}  // namespace ballast::server
