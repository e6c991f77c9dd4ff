// SPDX-License-Identifier: Apache-2.0
#include "client/cli/gate_view.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "client/cli/job_view.h"

namespace ballast::cli {
namespace {

using admin::v1::GateDecision;
using admin::v1::GateReport;
using admin::v1::GateScore;
using admin::v1::TenantStanding;

void AddLine(std::string& text, const char* name, const std::string& value) {
  if (!value.empty())
    absl::StrAppend(&text, absl::StrFormat("%-12s", name), Printable(value), "\n");
}

std::string Scales(const google::protobuf::RepeatedField<double>& scales) {
  return absl::StrJoin(scales, ", ", [](std::string* out, double scale) {
    absl::StrAppend(out, absl::StrFormat("%g", scale));
  });
}

void AddScore(Table& table, const std::string& scale, const std::string& group,
              const GateScore& score) {
  table.AddRow({scale, group, FormatCount(score.prompts()), FormatCount(score.refused_by_base()),
                FormatCount(score.refused()), FormatCount(score.broken()),
                absl::StrFormat("%+.3f", score.rise()), absl::StrFormat("%+.3f", score.rise_low()),
                score.failed() ? "beyond the limit" : ""});
}

std::string DescribeReport(const GateReport& report) {
  Table table({"SCALE", "PROMPTS ABOUT", "NUMBER", "REFUSED BY BASE", "REFUSED", "BROKEN", "RISE",
               "AT LEAST", "NOTE"});
  for (const auto& scale : report.scales()) {
    const std::string name =
        absl::StrFormat("%g%s", scale.scale(), scale.deciding() ? "" : " watched");
    for (const GateScore& score : scale.prohibited()) {
      AddScore(table, name, score.category().empty() ? "everything prohibited" : score.category(),
               score);
    }
    if (scale.has_look_alikes()) AddScore(table, name, "look-alikes", scale.look_alikes());
  }
  return table.Render();
}

}  // namespace

std::string DescribeCategories(const google::protobuf::RepeatedPtrField<std::string>& categories) {
  return categories.empty() ? "all categories together" : absl::StrJoin(categories, ", ");
}

std::string DescribeGate(const admin::v1::Gate& gate) {
  std::string text;
  AddLine(text, "gate", gate.name());
  AddLine(text, "digest", gate.digest());
  AddLine(text, "set", FormatTime(gate.set_time()));
  AddLine(text, "limits",
          absl::StrFormat("a rise of %g not refused; of %g look-alikes refused (only reported)",
                          gate.limits().max_rise(), gate.limits().max_over_refusal_rise()));
  AddLine(text, "scales",
          absl::StrCat(Scales(gate.limits().deciding_scales()), " decide",
                       gate.limits().watched_scales().empty() ? "" : "; ",
                       Scales(gate.limits().watched_scales()),
                       gate.limits().watched_scales().empty() ? "" : " are watched"));
  AddLine(text, "replies", absl::StrCat("of at most ", gate.limits().reply_tokens(), " tokens"));
  Table table({"PROMPTS ABOUT", "NUMBER"});
  const std::map<std::string, int32_t> sorted(gate.prohibited_prompts().begin(),
                                              gate.prohibited_prompts().end());
  for (const auto& [category, prompts] : sorted) table.AddRow({category, FormatCount(prompts)});
  table.AddRow({"look-alikes", FormatCount(gate.look_alike_prompts())});
  return absl::StrCat(text, "patterns    ", gate.refusal_patterns(),
                      " of refusal beside the worker's own\n\n", table.Render());
}

std::string DescribeJobGate(const admin::v1::JobGate& gate) {
  std::string text;
  AddLine(text, "job", gate.job());
  AddLine(text, "state", StateName(gate.state()));
  AddLine(text, "base model", gate.base_model());
  if (gate.has_withheld_time()) {
    AddLine(text, "withheld",
            absl::StrCat(FormatTime(gate.withheld_time()), " for ",
                         DescribeCategories(gate.failed_categories())));
  }
  if (gate.has_expire_time()) AddLine(text, "expires", FormatTime(gate.expire_time()));
  if (gate.has_decision()) {
    const GateDecision& decision = gate.decision();
    AddLine(text, "decision",
            absl::StrCat(GateDecision::Outcome_Name(decision.outcome()), " ",
                         FormatTime(decision.time()), decision.decided_by().empty() ? "" : " by ",
                         decision.decided_by(), decision.reason().empty() ? "" : ": ",
                         decision.reason()));
  }
  if (!gate.has_report()) return text;
  AddLine(text, "verdict",
          absl::StrCat(GateReport::Verdict_Name(gate.report().verdict()),
                       gate.report().over_refuses() ? ", and it refuses more look-alikes than the "
                                                      "limit allows"
                                                    : ""));
  return absl::StrCat(text, "\n", DescribeReport(gate.report()));
}

std::string DescribeStanding(const TenantStanding& standing) {
  std::string text;
  AddLine(text, "tenant", standing.name());
  AddLine(text, "state",
          standing.state() == TenantStanding::FROZEN
              ? absl::StrCat("FROZEN since ", FormatTime(standing.freeze_time()))
              : TenantStanding::State_Name(standing.state()));
  AddLine(text, "withheld",
          absl::StrCat(standing.withheld_drawn(), " of ", standing.withheld_budget(),
                       " that freeze it, ", standing.withheld_total(), " ever"));
  for (const auto& unfreeze : standing.unfreezes()) {
    AddLine(text, "unfrozen",
            absl::StrCat(FormatTime(unfreeze.time()), " by ", unfreeze.decided_by(), ": ",
                         unfreeze.reason()));
  }
  return text;
}

}  // namespace ballast::cli
