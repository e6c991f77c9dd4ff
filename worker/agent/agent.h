// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_AGENT_H_
#define BALLAST_WORKER_AGENT_AGENT_H_

#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/signature.h"
#include "worker/agent/base_loader.h"
#include "worker/agent/gate.h"
#include "worker/agent/lease_session.h"
#include "worker/agent/metrics.h"
#include "worker/agent/sampler.h"
#include "worker/agent/screening.h"
#include "worker/agent/worker_client.h"
#include "worker/vector_vault.h"

namespace ballast::worker::agent {

struct AgentOptions {
  std::string device = "cpu";  // reported until a base model is loaded, which knows better
  std::string version;
  std::string cache_dir;
  std::string metrics_address;  // of the Prometheus metrics; empty for none
  int checkpoint_steps = 50;    // 0: none
  // When set, jobs run only under vectors whose certificate is signed with it.
  std::optional<PublicKey> certificate_key;
  // Whether jobs of base models that the operator imported as unprotected are trained.
  bool allow_unprotected = false;
  // How long a stopping agent tries to report what it has done.
  absl::Duration stop_patience = absl::Seconds(20);
  // How long a result is offered, its lease renewed, to a server that answers but cannot store it.
  absl::Duration report_patience = absl::Minutes(30);
  // How long the agent takes no work after a failure that is the platform's, doubled each time up
  // to longest_pause: a worker that cannot work (a wrong key, a full disk) must not use up the
  // attempts of every job in a moment, but leave them to other workers.
  absl::Duration first_pause = absl::Seconds(1);
  absl::Duration longest_pause = absl::Minutes(1);
};

// The worker's main loop: asks for work, does it, reports it, one lease at a time; serves sampling
// orders between. The engine's calls run on the agent's own thread, heartbeats on another.
//
// Thread safety: Start once; Drain from any thread; Stop and Wait from one thread.
class Agent {
 public:
  // `client`, `vault` and `clock` must outlive the agent.
  Agent(const AgentOptions& options, WorkerClient& client, VectorVault& vault,
        BaseLoader::EngineFactory load_engine, BaseLoader::TextFactory load_text, Clock& clock);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Opens the cache folder, serves the metrics and starts the thread. Fails when the folder cannot
  // be made, or with PORT_IN_USE.
  absl::Status Start();

  // Asks the agent to stop: a running job writes a checkpoint and is handed back. Returns at once.
  void Drain();

  // Drain, then waits until everything is handed back.
  void Stop();

  const Metrics& metrics() const { return metrics_; }

 private:
  void Run();
  // Does what an answer of Synchronize asks for, and what the answers to its reports ask for.
  void Handle(pb::SynchronizeResponse response);
  pb::SynchronizeResponse DoWork(const pb::Work& work, absl::Duration interval);
  absl::StatusOr<pb::SynchronizeRequest::Finished> RunTask(const pb::Work& work,
                                                           LeaseSession& session);
  // Reports the end of a lease until the server takes it or never will.
  pb::SynchronizeResponse Report(const pb::SynchronizeRequest::Finished& finished,
                                 const LeaseSession& session);
  void SayGoodbye();
  // Waits after platform failures; see AgentOptions::first_pause.
  void PauseIfFailing();
  pb::SynchronizeRequest Identity();
  bool draining() const { return drain_.cancelled(); }

  const AgentOptions options_;
  WorkerClient& client_;
  VectorVault& vault_;
  Clock& clock_;
  Metrics metrics_;
  BaseCache cache_;
  BaseLoader bases_;
  Sampler sampler_;
  BaseRepliesCache base_replies_;
  GuardCache guards_;

  int platform_failures_ = 0;  // in a row
  bool pause_ = false;         // before the next work

  Cancellation drain_;  // ends the long poll and the waits between tries
  absl::Mutex mutex_;
  LeaseSession* session_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_AGENT_H_
