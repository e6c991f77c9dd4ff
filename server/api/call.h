// SPDX-License-Identifier: Apache-2.0
// What every RPC does the same way: who calls, whether they may, counting, and running off gRPC's
// threads.
#ifndef BALLAST_SERVER_API_CALL_H_
#define BALLAST_SERVER_API_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/grpc_status.h"
#include "server/api/executor.h"
#include "server/api/idle_streams.h"
#include "server/api/metrics.h"
#include "server/core/authenticator.h"

namespace ballast::server {

// Largest piece of bytes in one message of an upload.
inline constexpr size_t kMaxChunkBytes = size_t{1} << 20;
// Pieces in which files are sent.
inline constexpr size_t kReadChunkBytes = size_t{256} << 10;

// Which keys an RPC takes.
enum class Allowed { kTenant, kTenantOrOperator, kOperator, kWorker };

// What services share. All members outlive every call.
struct ApiContext {
  const Authenticator& authenticator;
  Clock& clock;
  Executor& executor;
  // For what reads and writes blobs, which may wait for a network: heartbeats do not queue behind
  // it.
  Executor& transfers;
  IdleStreams& idle_streams;
  Metrics& metrics;
};

// Who calls. UNAUTHENTICATED (API_KEY_MISSING, API_KEY_INVALID), PERMISSION_DENIED (TENANT_ONLY,
// OPERATOR_ONLY, WORKER_ONLY).
absl::StatusOr<Principal> Authorize(const ApiContext& api,
                                    const grpc::CallbackServerContext& context, Allowed allowed);

// One RPC, from its start to its status. Thread safety: not thread-safe.
class Call {
 public:
  // `method` is "Service/Method", a constant.
  Call(const ApiContext& api, const char* method)
      : api_(api), method_(method), start_(api.clock.Now()) {}

  const ApiContext& api() const { return api_; }
  absl::Time Now() const { return api_.clock.Now(); }

  // The status to finish with, without details of the server itself; counts the call and logs what
  // the operator must know. Called once.
  grpc::Status End(const absl::Status& status) const;

 private:
  const ApiContext& api_;
  const char* method_;
  absl::Time start_;
};

// Runs a unary RPC: authorises in gRPC's thread, then `handler` where `run(principal, task)` has it
// run.
template <typename Run, typename Response, typename Handler>
grpc::ServerUnaryReactor* UnaryBy(Run run, const ApiContext& api, const char* method,
                                  grpc::CallbackServerContext* context, Allowed allowed,
                                  Response* response, Handler handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const Call call(api, method);
  auto principal = Authorize(api, *context, allowed);
  if (!principal.ok()) {
    reactor->Finish(call.End(principal.status()));
    return reactor;
  }
  const Principal who = *std::move(principal);
  run(who, [call, reactor, response, handler = std::move(handler), who] {
    absl::StatusOr<Response> result = handler(who, call.Now());
    const absl::Status status = result.status();
    if (status.ok()) *response = *std::move(result);
    reactor->Finish(call.End(status));
  });
  return reactor;
}

// The same on one of `threads`.
template <typename Response, typename Handler>
grpc::ServerUnaryReactor* UnaryOn(Executor& threads, const ApiContext& api, const char* method,
                                  grpc::CallbackServerContext* context, Allowed allowed,
                                  Response* response, Handler handler) {
  const auto run = [&threads](const Principal&, std::function<void()> task) {
    threads.Run(std::move(task));
  };
  return UnaryBy(run, api, method, context, allowed, response, std::move(handler));
}

// The same for RPCs that touch no blob.
template <typename Response, typename Handler>
grpc::ServerUnaryReactor* Unary(const ApiContext& api, const char* method,
                                grpc::CallbackServerContext* context, Allowed allowed,
                                Response* response, Handler handler) {
  return UnaryOn(api.executor, api, method, context, allowed, response, std::move(handler));
}

// A stream that has ended before it began.
template <typename Reactor>
class Refused : public Reactor {
 public:
  explicit Refused(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

// A client-streaming RPC whose messages are handled one after another on `threads`, by default
// those for transfers. Deletes itself.
template <typename Request>
class ClientStream : public grpc::ServerReadReactor<Request> {
 public:
  ClientStream(const ApiContext& api, const char* method, grpc::CallbackServerContext* context)
      : ClientStream(api.transfers, api, method, context) {}
  ClientStream(Executor& threads, const ApiContext& api, const char* method,
               grpc::CallbackServerContext* context)
      : call_(api, method), context_(context), threads_(threads) {
    api.idle_streams.WaitFrom(context_, call_.Now());
  }

  // Begins reading; called once, after construction.
  void Begin() { this->StartRead(&request_); }

 protected:
  // The next message. An error ends the call; `true` ends it with OK.
  virtual absl::StatusOr<bool> OnMessage(Request& request) = 0;
  // The client has sent everything without OnMessage having ended the call. Not called when the
  // client went away: the destructor then cleans up.
  virtual absl::Status OnEnd() = 0;
  // The call is about to end: what it holds for itself must be free before its client can know.
  virtual void Release() {}

  const Call& call() const { return call_; }

 private:
  void OnReadDone(bool ok) final {
    // From here on the client waits for the server.
    call_.api().idle_streams.Suspend(context_);
    threads_.Run([this, ok] { Handle(ok); });
  }

  void Handle(bool ok) {
    absl::Status status;
    if (ok) {
      const absl::StatusOr<bool> done = OnMessage(request_);
      if (done.ok() && !*done) {
        call_.api().idle_streams.WaitFrom(context_, call_.Now());
        this->StartRead(&request_);
        return;
      }
      status = done.status();
    } else {
      status = context_->IsCancelled() ? absl::CancelledError("the client went away") : OnEnd();
    }
    Release();
    call_.api().idle_streams.WaitFrom(context_, call_.Now());
    this->Finish(call_.End(status));
  }

  void OnDone() final {
    call_.api().idle_streams.Remove(context_);
    // The destructor may have files to delete.
    threads_.Run([this] { delete this; });
  }

  const Call call_;
  grpc::CallbackServerContext* const context_;
  Executor& threads_;
  Request request_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_CALL_H_
