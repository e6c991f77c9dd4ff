// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_METRICS_H_
#define BALLAST_SERVER_API_METRICS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace ballast::server {

// What the server counts, for Prometheus. Names are ballast_server_<what>_<unit>; labels hold
// method, code and state only, never anything of a tenant (T1). Thread safety: thread-safe.
class Metrics {
 public:
  Metrics();

  // Serves http://`address`/metrics. FAILED_PRECONDITION (PORT_IN_USE).
  absl::Status Serve(const std::string& address);
  // Port that Serve listens on; 0 before.
  int port() const;

  // A finished RPC. `method` is "Service/Method".
  void CountRpc(const char* method, absl::StatusCode code, absl::Duration took);
  void CountUploadedBytes(int64_t bytes);
  void CountSentBytes(int64_t bytes);
  void CountLinks(int64_t links);
  // `total` since the start of the server; called by one thread at a time.
  void SetLeasesLost(int64_t total);
  void SetJobs(const std::string& state, int64_t count);
  void SetVectors(const std::string& state, int64_t count);
  void SetValidationQueue(int64_t datasets);
  void SetWorkers(int64_t workers);
  void SetHeldCalls(int64_t idle_workers);
  void SetWatchers(int64_t watchers);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Histogram>& latency_;
  prometheus::Counter& uploaded_;
  prometheus::Counter& sent_;
  prometheus::Counter& links_;
  prometheus::Counter& leases_lost_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Gauge>& vectors_;
  prometheus::Gauge& validation_queue_;
  prometheus::Gauge& workers_;
  prometheus::Gauge& idle_workers_;
  prometheus::Gauge& watchers_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_METRICS_H_
