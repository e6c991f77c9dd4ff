// SPDX-License-Identifier: Apache-2.0
// The gate between training and delivery: base and base + delta are asked the operator's prompts,
// vector off, and the rule says whether the delta may be delivered.
#ifndef BALLAST_WORKER_AGENT_GATE_H_
#define BALLAST_WORKER_AGENT_GATE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/admin/v1/gate.pb.h"
#include "common/behaviour/behaviour_set.h"
#include "worker/agent/base_loader.h"
#include "worker/agent/newest_few.h"
#include "worker/agent/task.h"
#include "worker/behaviour/behaviour_evaluation.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// What a delta is measured by.
struct Gate {
  ballast::behaviour::BehaviourSet set;
  std::string digest;
  ballast::admin::v1::GateLimits limits;
};

// How bases alone reply to gate sets, which every job on a base is compared with.
class BaseRepliesCache : public NewestFew<behaviour::Replies> {};

// The gate of a job's work, read before the training so that one that cannot be used costs no
// training; empty where the base has none. DATA_LOSS (GATE_UNUSABLE) when the blob is not the gate
// set that the work names; the errors of reading it.
absl::StatusOr<std::optional<Gate>> ReadGate(TaskEnvironment& environment, const pb::Work& work);

// Measures `adapter`. Waiting samples are served in between. CANCELLED when the session's order
// ended it; the errors of BehaviourEvaluation.
absl::StatusOr<ballast::admin::v1::GateReport> RunGate(TaskEnvironment& environment,
                                                       LoadedBase& base, const Gate& gate,
                                                       const Adapter& adapter,
                                                       const LoraConfig& lora);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_GATE_H_
