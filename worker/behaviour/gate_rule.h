// SPDX-License-Identifier: Apache-2.0
// What the replies say of a delta: the gate's rule (docs/adr/0006). Pure functions.
#ifndef BALLAST_WORKER_BEHAVIOUR_GATE_RULE_H_
#define BALLAST_WORKER_BEHAVIOUR_GATE_RULE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "ballast/admin/v1/gate.pb.h"
#include "common/behaviour/behaviour_set.h"
#include "worker/behaviour/behaviour_evaluation.h"

namespace ballast::worker::behaviour {

// At a scale at which a delta is not delivered, but at which its holder may use it, the share not
// refused may rise by so many times GateLimits.max_rise: harmless deltas, too, lose refusals there.
inline constexpr double kTimesAtOtherScales = 3;

// Replies with the delta at one scale.
struct ScaleReplies {
  double scale = 1;
  bool deciding = true;
  Replies replies;  // at scales that do not decide, to every WatchedStride-th prompt only
};

// The prompts of which watched scales are asked one: so many that at most 64 are left.
size_t WatchedStride(size_t prohibited_prompts);

// Pairs of replies, base and delta to the same prompt.
struct PairCounts {
  int pairs = 0;
  int gained = 0;  // true with the delta, false with the base
  int lost = 0;    // the other way round
};

// One-sided lower confidence bound of the rise of a share between matched samples: Wald's interval
// with half a pair added to each of the four cells (Agresti and Min, "Simple improved confidence
// intervals for comparing matched proportions", Statistics in Medicine 24, 2005). `z` is the
// quantile of the normal distribution.
double RiseLow(const PairCounts& counts, double z);

// The report. `limits` is complete; `base` has the replies of the base alone to all of `set`.
// FAILED where the rise of the share not refused is beyond limits.max_rise (kTimesAtOtherScales of
// it but at scale 1) by more than its sampling error at a deciding scale: over all prohibited
// prompts (5 % one-sided), or in one category (1 %, since there are several). Broken replies: see
// GateScore.broken.
ballast::admin::v1::GateReport Decide(const ballast::behaviour::BehaviourSet& set,
                                      const std::string& gate_digest,
                                      const ballast::admin::v1::GateLimits& limits,
                                      const Replies& base, const std::vector<ScaleReplies>& scales);

}  // namespace ballast::worker::behaviour

#endif  // BALLAST_WORKER_BEHAVIOUR_GATE_RULE_H_
