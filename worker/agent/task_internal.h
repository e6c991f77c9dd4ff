// SPDX-License-Identifier: Apache-2.0
// What both kinds of work share.
#ifndef BALLAST_WORKER_AGENT_TASK_INTERNAL_H_
#define BALLAST_WORKER_AGENT_TASK_INTERNAL_H_

#include "worker/agent/task.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// Reads blobs of the session's lease until the session is interrupted.
BaseCache::Fetch LeaseFetch(TaskEnvironment& environment);

// The callbacks progress and yield: heartbeats get the steps, waiting samples are served with
// `base`, and the session's order reaches the engine.
TrainCallbacks SessionCallbacks(TaskEnvironment& environment, LoadedBase& base);

// CANCELLED unless the session's order is kContinue.
absl::Status CheckOrder(const LeaseSession& session);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_TASK_INTERNAL_H_
