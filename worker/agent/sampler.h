// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_SAMPLER_H_
#define BALLAST_WORKER_AGENT_SAMPLER_H_

#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/agent/base_loader.h"
#include "worker/agent/metrics.h"
#include "worker/agent/worker_client.h"

namespace ballast::worker::agent {

// Sampling orders of this worker: they arrive with answers of Synchronize on any thread, and are
// served on the engine's thread, between micro-batches of a training or when the worker is idle.
// Always the clean base, or the clean base with the customer's adapter: never the vector. Thread
// safety: Add from any thread, the rest on the engine's thread only.
class Sampler {
 public:
  // Both must outlive the sampler.
  Sampler(WorkerClient& client, Metrics& metrics) : client_(client), metrics_(metrics) {}

  // Takes an order.
  void Add(const pb::SampleOrder& order);

  // Serves what waits with `base`; an order for another base gets UNAVAILABLE (SAMPLE_BASE_BUSY).
  // `stop` is asked before each token; when it says true the rest is refused (WORKER_STOPPING).
  // `interrupt` ends the download of an adapter.
  void ServeWith(LoadedBase& base, const std::function<bool()>& stop, Cancellation& interrupt);

  // As ServeWith for an idle worker: `load` gives the base that an order needs.
  void ServeIdle(
      const std::function<absl::StatusOr<LoadedBase*>(const pb::SampleOrder&, BlobReader)>& load,
      const std::function<bool()>& stop, Cancellation& interrupt);

  // Refuses what waits (WORKER_STOPPING).
  void RefuseAll();

 private:
  std::optional<pb::SampleOrder> Next();
  void Serve(const pb::SampleOrder& order, LoadedBase& base, const std::function<bool()>& stop,
             Cancellation& interrupt);
  // Sends pieces until the end; returns the reason of the end, or a failure.
  absl::StatusOr<std::string> Generate(const pb::SampleOrder& order, LoadedBase& base,
                                       const std::function<bool()>& stop, Cancellation& interrupt,
                                       SampleReply& reply);
  absl::StatusOr<const Adapter*> FetchAdapter(const pb::SampleOrder& order, const LoadedBase& base,
                                              Cancellation& interrupt);
  void Refuse(const pb::SampleOrder& order, const absl::Status& status);

  WorkerClient& client_;
  Metrics& metrics_;
  // Replies end by `stop`, not from outside: who waits is told why.
  Cancellation never_;

  mutable absl::Mutex mutex_;
  std::deque<pb::SampleOrder> orders_ ABSL_GUARDED_BY(mutex_);

  // The last adapter, for a conversation with one delta.
  std::string adapter_key_;
  Adapter adapter_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_SAMPLER_H_
