// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_LEASE_SESSION_H_
#define BALLAST_WORKER_AGENT_LEASE_SESSION_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/agent/metrics.h"
#include "worker/agent/worker_client.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// The worker's side of a lease while the work runs and until its end is reported: a thread sends
// heartbeats with the progress, renews the lease by them, and brings back what the server wants.
//
// What is reported is what S2 allows: steps, tokens of finished steps, vector-off losses of
// evaluation points, what screening found (the guard knows nothing of a vector), the digest of the
// newest checkpoint.
//
// Thread safety: thread-safe. Start once; Stop is idempotent and is called by the destructor.
class LeaseSession {
 public:
  enum class Order {
    kContinue,
    kPause,   // checkpoint and stop; the owner asked for a pause
    kDrain,   // checkpoint and hand back
    kCancel,  // stop; the owner cancelled
    kLost,    // stop and report nothing; the lease is somebody else's
  };

  // `identity` has device and version; `samples` gets the orders that come with answers. `client`
  // must outlive the session. `interval` holds until the server gives another one.
  LeaseSession(WorkerClient& client, Metrics& metrics, pb::SynchronizeRequest identity,
               pb::Lease lease, absl::Duration interval,
               std::function<void(const pb::SampleOrder&)> samples);
  ~LeaseSession();
  LeaseSession(const LeaseSession&) = delete;
  LeaseSession& operator=(const LeaseSession&) = delete;

  void Start();
  void Stop();

  const pb::Lease& lease() const { return lease_; }
  Order order() const;
  // Whether `order` is to write a last checkpoint, where that may be told from, and stop.
  static bool AsksForCheckpoint(Order order) {
    return order == Order::kPause || order == Order::kDrain;
  }

  // The worker is stopping: the order becomes kDrain unless it is more urgent already.
  void Drain();

  // Used up as soon as the order is not kContinue: for reading what the work needs.
  Cancellation& interrupt() { return interrupt_; }
  // Used up when the lease was cancelled or lost: for writing what the work made.
  Cancellation& abandon() { return abandon_; }

  void SetProgress(const Progress& progress);
  // Sent at once.
  void AddEvaluation(const Evaluation& evaluation);
  // Sent at once.
  void SetScreening(const ballast::v1::ScreeningReport& report);
  // Sent at once.
  void SetCheckpoint(const std::string& digest, int64_t step);
  // The newest checkpoint could not be written.
  void SetCheckpointFailed();
  bool checkpoint_failed() const;

  pb::SynchronizeRequest::Busy Snapshot() const;

 private:
  void Run();
  void Beat();
  void Raise(Order order);

  WorkerClient& client_;
  Metrics& metrics_;
  const pb::SynchronizeRequest identity_;
  const pb::Lease lease_;
  const std::function<void(const pb::SampleOrder&)> samples_;

  Cancellation interrupt_;
  Cancellation abandon_;
  Cancellation stop_;  // ends the heartbeat that is under way

  mutable absl::Mutex mutex_;
  Order order_ ABSL_GUARDED_BY(mutex_) = Order::kContinue;
  pb::SynchronizeRequest::Busy state_ ABSL_GUARDED_BY(mutex_);
  absl::Duration interval_ ABSL_GUARDED_BY(mutex_);
  bool wake_ ABSL_GUARDED_BY(mutex_) = false;
  bool checkpoint_failed_ ABSL_GUARDED_BY(mutex_) = false;
  int failures_ = 0;  // consecutive; of the heartbeat thread
  std::thread thread_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_LEASE_SESSION_H_
