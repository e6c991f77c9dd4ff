// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/cancellation.h"

namespace ballast::worker::agent {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

bool Cancellation::WaitFor(absl::Duration duration) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&cancelled_), duration);
}

CancellableCall::CancellableCall(Cancellation& cancellation, grpc::ClientContext& context)
    : cancellation_(cancellation), context_(context) {
  absl::MutexLock lock(&cancellation_.mutex_);
  cancellation_.calls_.insert(&context_);
  // gRPC remembers a cancel that comes before the call starts.
  if (cancellation_.cancelled_) context_.TryCancel();
}

CancellableCall::~CancellableCall() {
  absl::MutexLock lock(&cancellation_.mutex_);
  cancellation_.calls_.erase(&context_);
}

}  // namespace ballast::worker::agent
