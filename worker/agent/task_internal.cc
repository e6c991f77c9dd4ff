// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/task_internal.h"

namespace ballast::worker::agent {

BaseCache::Fetch LeaseFetch(TaskEnvironment& environment) {
  return [&environment](const std::string& blob,
                        const std::function<absl::Status(std::string_view)>& sink) {
    return environment.client.ReadBlob({environment.session.lease(), ""}, blob, sink,
                                       environment.session.interrupt());
  };
}

TrainCallbacks SessionCallbacks(TaskEnvironment& environment, LoadedBase& base) {
  LeaseSession& session = environment.session;
  Sampler& sampler = environment.sampler;
  TrainCallbacks callbacks;
  Metrics& metrics = environment.metrics;
  callbacks.progress = [&session, &metrics](const Progress& progress) {
    session.SetProgress(progress);
    metrics.CountStep();
  };
  callbacks.yield = [&session, &sampler, &base] {
    sampler.ServeWith(
        base, [&session] { return session.order() != LeaseSession::Order::kContinue; },
        session.interrupt());
    switch (session.order()) {
      case LeaseSession::Order::kContinue:
        return TrainCallbacks::Order::kContinue;
      case LeaseSession::Order::kPause:
      case LeaseSession::Order::kDrain:
        return TrainCallbacks::Order::kStopAndCheckpoint;
      case LeaseSession::Order::kCancel:
      case LeaseSession::Order::kLost:
        break;
    }
    return TrainCallbacks::Order::kStop;
  };
  return callbacks;
}

absl::Status CheckOrder(const LeaseSession& session) {
  if (session.order() == LeaseSession::Order::kContinue) return absl::OkStatus();
  return absl::CancelledError("the work was stopped");
}

}  // namespace ballast::worker::agent
