// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_IDLE_STREAMS_H_
#define BALLAST_SERVER_API_IDLE_STREAMS_H_

#include <grpcpp/server_context.h>

#include <map>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ballast::server {

// Ends streams whose client has gone quiet, so that nobody can hold files and locks for ever.
// Thread safety: thread-safe.
class IdleStreams {
 public:
  // The server waits for the client of `context` from `now` on. `context` stays valid until Remove.
  void WaitFrom(grpc::CallbackServerContext* context, absl::Time now) {
    absl::MutexLock lock(&mutex_);
    waiting_since_[context] = now;
  }
  // The server itself is at work, as long as that takes: until the next WaitFrom the stream is not
  // idle.
  void Suspend(grpc::CallbackServerContext* context) { WaitFrom(context, absl::InfiniteFuture()); }
  void Remove(grpc::CallbackServerContext* context) {
    absl::MutexLock lock(&mutex_);
    waiting_since_.erase(context);
  }
  // Cancels every stream whose client was waited for longer than `limit`.
  void Sweep(absl::Time now, absl::Duration limit) {
    absl::MutexLock lock(&mutex_);
    for (const auto& [context, since] : waiting_since_) {
      if (since + limit < now) context->TryCancel();
    }
  }

 private:
  absl::Mutex mutex_;
  std::map<grpc::CallbackServerContext*, absl::Time> waiting_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_IDLE_STREAMS_H_
