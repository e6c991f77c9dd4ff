// SPDX-License-Identifier: Apache-2.0
// The two kinds of work under a lease. They run on the agent's thread, from the download of what
// the work needs to the last file written; reporting the end is the agent's.
#ifndef BALLAST_WORKER_AGENT_TASK_H_
#define BALLAST_WORKER_AGENT_TASK_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/signature.h"
#include "worker/agent/base_loader.h"
#include "worker/agent/lease_session.h"
#include "worker/agent/metrics.h"
#include "worker/agent/sampler.h"
#include "worker/agent/worker_client.h"
#include "worker/vector_vault.h"

namespace ballast::worker::agent {

class BaseRepliesCache;
class GuardCache;

// What a task works with; borrowed.
struct TaskEnvironment {
  WorkerClient& client;
  VectorVault& vault;
  BaseLoader& bases;
  Sampler& sampler;
  LeaseSession& session;
  Clock& clock;
  Metrics& metrics;
  BaseRepliesCache& base_replies;
  GuardCache& guards;
  std::string version;
  int checkpoint_steps = 0;                    // 0: none
  const PublicKey* certificate_key = nullptr;  // see AgentOptions
  bool allow_unprotected = false;              // see AgentOptions
};

// Trains a customer's adapter under the vector, measures it by the base's gate where there is one,
// and writes the delta. Trains without a vector only where the base is marked as unprotected and
// the worker allows that. PROTECTION_UNAVAILABLE when it does not, when there is no vector,
// it does not open, it is bound to another base, or its certificate does not hold
// (certificate_check.h).
// CANCELLED or ABORTED when the session's order ended it; a last checkpoint has been written then,
// if that could be, where the order asks for one.
absl::StatusOr<pb::SynchronizeRequest::Finished> RunFineTune(TaskEnvironment& environment,
                                                             const pb::Work& work);

// Trains a vector, seals it and writes the ciphertext. The clear tensors never leave this process.
absl::StatusOr<pb::SynchronizeRequest::Finished> RunTrainVector(TaskEnvironment& environment,
                                                                const pb::Work& work);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_TASK_H_
