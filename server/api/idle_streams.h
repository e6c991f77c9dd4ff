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
  // A sign of life of the stream of `context`, which stays valid until Remove.
  void Touch(grpc::CallbackServerContext* context, absl::Time now) {
    absl::MutexLock lock(&mutex_);
    last_[context] = now;
  }
  void Remove(grpc::CallbackServerContext* context) {
    absl::MutexLock lock(&mutex_);
    last_.erase(context);
  }
  // Cancels every stream without a sign of life since `limit` ago.
  void Sweep(absl::Time now, absl::Duration limit) {
    absl::MutexLock lock(&mutex_);
    for (const auto& [context, last] : last_) {
      if (last + limit < now) context->TryCancel();
    }
  }

 private:
  absl::Mutex mutex_;
  std::map<grpc::CallbackServerContext*, absl::Time> last_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_IDLE_STREAMS_H_
