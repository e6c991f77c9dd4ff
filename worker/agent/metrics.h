// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_METRICS_H_
#define BALLAST_WORKER_AGENT_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace ballast::worker::agent {

// What the worker counts, for Prometheus. No tenant, name or loss is in a label or a value (S2,
// T1). Thread safety: thread-safe; Serve once.
class Metrics {
 public:
  Metrics();

  // Serves http://ADDRESS/metrics. FAILED_PRECONDITION (PORT_IN_USE).
  absl::Status Serve(const std::string& address);
  // Port that is served; 0 without Serve.
  int port() const;

  // A lease was taken; call CountLease at its end.
  void SetBusy(bool busy);
  // `work`: "fine_tune" or "train_vector"; `outcome`: "done", "failed", "cancelled", "paused",
  // "handed_back", "lost".
  void CountLease(const std::string& work, const std::string& outcome);
  void CountStep();
  void CountSample(bool answered);
  void CountHeartbeatFailure();

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& leases_;
  prometheus::Family<prometheus::Counter>& samples_;
  prometheus::Counter& steps_;
  prometheus::Counter& heartbeat_failures_;
  prometheus::Gauge& busy_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_METRICS_H_
