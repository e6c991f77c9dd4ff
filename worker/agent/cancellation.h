// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_CANCELLATION_H_
#define BALLAST_WORKER_AGENT_CANCELLATION_H_

#include <grpcpp/client_context.h>

#include <set>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ballast::worker::agent {

// A switch that ends calls and waits from another thread, once and for good.
// Thread safety: thread-safe.
class Cancellation {
 public:
  // Ends every call and wait that runs under it, and those that start later.
  void Cancel();

  bool cancelled() const;

  // Waits for `duration` or until cancelled; true when cancelled. Real time: waits between tries.
  bool WaitFor(absl::Duration duration) const;

 private:
  friend class CancellableCall;
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

// Ties a call to a Cancellation for as long as it lives. Make it before the call starts, and
// destroy it before the context.
class CancellableCall {
 public:
  CancellableCall(Cancellation& cancellation, grpc::ClientContext& context);
  ~CancellableCall();
  CancellableCall(const CancellableCall&) = delete;
  CancellableCall& operator=(const CancellableCall&) = delete;

 private:
  Cancellation& cancellation_;
  grpc::ClientContext& context_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_CANCELLATION_H_
