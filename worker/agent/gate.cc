// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/gate.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/agent/status_text.h"
#include "worker/behaviour/gate_rule.h"

namespace ballast::worker::agent {
namespace {

using ballast::admin::v1::GateReport;
using behaviour::Replies;
using behaviour::ScaleReplies;

absl::Status Unusable(const std::string& resource, const std::string& why) {
  spdlog::error("{}: its gate cannot be used: {}", resource, why);
  return MakeError(absl::StatusCode::kDataLoss, "GATE_UNUSABLE", "the base's gate cannot be used");
}

}  // namespace

absl::StatusOr<std::optional<Gate>> ReadGate(TaskEnvironment& environment, const pb::Work& work) {
  if (!work.fine_tune().has_gate()) return std::optional<Gate>();
  const std::string& resource = work.lease().resource();
  const pb::GateWork& wanted = work.fine_tune().gate();
  BALLAST_ASSIGN_OR_RETURN(
      const std::string bytes,
      environment.client.ReadBlobToMemory({environment.session.lease(), ""}, wanted.blob(),
                                          static_cast<int64_t>(ballast::behaviour::kMaxSetBytes),
                                          environment.session.interrupt()));
  if (DigestOf(bytes) != wanted.digest()) return Unusable(resource, "it has another digest");
  auto set = ballast::behaviour::ParseBehaviourSet(bytes);
  if (!set.ok()) return Unusable(resource, StatusText(set.status()));
  return std::optional<Gate>(Gate{*std::move(set), wanted.digest(), wanted.limits()});
}

absl::StatusOr<GateReport> RunGate(TaskEnvironment& environment, LoadedBase& base, const Gate& gate,
                                   const Adapter& adapter, const LoraConfig& lora) {
  LeaseSession& session = environment.session;
  const std::string& resource = session.lease().resource();
  // A pause that comes now is too late: what is trained is measured and delivered.
  const auto stop = [&session] { return session.order() > LeaseSession::Order::kPause; };
  behaviour::BehaviourEvaluation::Hooks hooks;
  hooks.go_on = [&stop] { return !stop(); };
  hooks.between = [&] { environment.sampler.ServeWith(base, stop, session.interrupt()); };
  BALLAST_ASSIGN_OR_RETURN(auto evaluation, behaviour::BehaviourEvaluation::Create(
                                                *base.engine, base.text, gate.set,
                                                gate.limits.reply_tokens(), std::move(hooks)));
  const std::string key =
      absl::StrCat(base.digest, " ", gate.digest, " ", gate.limits.reply_tokens());
  const Replies* base_replies = environment.base_replies.Find(key);
  if (base_replies == nullptr) {
    spdlog::info("{}: the gate asks the base alone", resource);
    BALLAST_ASSIGN_OR_RETURN(Replies replies, evaluation.Ask({}, 1, /*look_alikes=*/true));
    base_replies = &environment.base_replies.Put(key, std::move(replies));
  }
  std::vector<ScaleReplies> scales;
  const auto ask = [&](double scale, bool deciding) -> absl::Status {
    ScaleReplies& asked = scales.emplace_back();
    asked.scale = scale;
    asked.deciding = deciding;
    const size_t stride = deciding ? 1 : behaviour::WatchedStride(gate.set.prohibited.size());
    BALLAST_ASSIGN_OR_RETURN(asked.replies,
                             evaluation.Ask({{&adapter, lora, static_cast<float>(scale)}}, stride,
                                            /*look_alikes=*/deciding));
    return absl::OkStatus();
  };
  for (const double scale : gate.limits.deciding_scales()) {
    BALLAST_RETURN_IF_ERROR(ask(scale, true));
  }
  for (const double scale : gate.limits.watched_scales()) {
    BALLAST_RETURN_IF_ERROR(ask(scale, false));
  }
  GateReport report = behaviour::Decide(gate.set, gate.digest, gate.limits, *base_replies, scales);
  spdlog::info("{}: the gate says {}", resource, GateReport::Verdict_Name(report.verdict()));
  return report;
}

}  // namespace ballast::worker::agent
