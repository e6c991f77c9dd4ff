// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_HELD_CALLS_H_
#define BALLAST_SERVER_API_HELD_CALLS_H_

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/api/call.h"
#include "server/api/sample_broker.h"
#include "server/api/sample_relay.h"
#include "server/core/control_plane.h"

namespace ballast::server {

// A call of a worker's that can be held.
class WorkerCall {
 public:
  virtual ~WorkerCall() = default;
  virtual const worker::v1::SynchronizeRequest& request() const = 0;
  // Whether its client has gone.
  virtual bool cancelled() const = 0;
  // Ends the call, after which it may be deleted; called once, by who owns it.
  virtual void Answer(absl::StatusOr<worker::v1::SynchronizeResponse> response) = 0;
};

// Calls of idle workers that wait for work, without a thread for each. Thread safety: thread-safe.
class HeldCalls {
 public:
  // How long a call is held at most.
  static constexpr absl::Duration kHold = absl::Seconds(20);

  // All must outlive the object; `relay` may be null.
  HeldCalls(ControlPlane& plane, SampleBroker& broker, SampleRelay* relay = nullptr)
      : plane_(plane), broker_(broker), relay_(relay) {}

  // Answers one exchange from the control plane, with sampling orders put in: those of other
  // servers where there are none here.
  absl::StatusOr<worker::v1::SynchronizeResponse> Answer(
      absl::Time now, const worker::v1::SynchronizeRequest& request);

  // Takes a call that has nothing to do. An older one of the same worker is answered: it is lost,
  // or the worker would not have called again.
  void Hold(WorkerCall* call, absl::Time deadline);
  // The client of a held call has gone.
  void Drop(WorkerCall* call);
  // There may be work: gives it to held calls, the oldest first, and to several in one transaction.
  void Dispatch(absl::Time now);
  // Answers calls that were held long enough.
  void Sweep(absl::Time now);
  // Answers all calls, and holds none from now on.
  void Drain();
  int64_t count() const;
  // Number of Dispatch calls begun: a caller that found nothing to do before one looks again after
  // it.
  int64_t dispatches() const { return dispatches_.load(); }

 private:
  struct Held {
    WorkerCall* call;
    std::string worker_id;
    absl::Time deadline;
  };

  // Takes the oldest calls, ControlPlane::kMostAtOnce at most; those whose client has gone end.
  std::vector<Held> TakeOldest();
  // Holds calls again, before all others.
  void HoldAgain(std::vector<Held> calls);
  void AddSamples(absl::Time now, const worker::v1::SynchronizeRequest& request,
                  worker::v1::SynchronizeResponse& response);
  // Digest of the base model that the worker has to do with after `response`; empty when it is
  // free. Failures of the store, FAILED_PRECONDITION (LEASE_LOST).
  absl::StatusOr<std::string> BaseInUse(absl::Time now,
                                        const worker::v1::SynchronizeRequest& request,
                                        const worker::v1::SynchronizeResponse& response);
  // Offers of other servers, and late ones of this; none where they cannot be looked up.
  std::vector<worker::v1::SampleOrder> TakeOffers(absl::Time now, const std::string& worker_id,
                                                  size_t most, const std::string& base_digest);

  ControlPlane& plane_;
  SampleBroker& broker_;
  SampleRelay* const relay_;
  std::atomic<int64_t> dispatches_ = 0;
  std::atomic<int64_t> replaced_ = 0;  // calls answered for a newer one of the same worker
  absl::Mutex dispatch_mutex_;         // one Dispatch at a time
  mutable absl::Mutex mutex_;
  std::list<Held> held_ ABSL_GUARDED_BY(mutex_);  // one of a worker at most
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

// One call of Synchronize. Deletes itself.
class SynchronizeCall : public grpc::ServerUnaryReactor, public WorkerCall {
 public:
  SynchronizeCall(const ApiContext& api, grpc::CallbackServerContext* context,
                  const worker::v1::SynchronizeRequest* request,
                  worker::v1::SynchronizeResponse* response, HeldCalls& held)
      : call_(api, "WorkerService/Synchronize"),
        context_(context),
        request_(*request),
        response_(response),
        held_(held) {}

  const worker::v1::SynchronizeRequest& request() const override { return request_; }
  bool cancelled() const override { return context_->IsCancelled(); }

  // Answers now, or lets the call be held. Runs on the executor.
  void Begin();
  void Answer(absl::StatusOr<worker::v1::SynchronizeResponse> response) override;

 private:
  void OnCancel() override;
  void OnDone() override { delete this; }

  const Call call_;
  grpc::CallbackServerContext* const context_;
  const worker::v1::SynchronizeRequest& request_;
  worker::v1::SynchronizeResponse* const response_;
  HeldCalls& held_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_HELD_CALLS_H_
