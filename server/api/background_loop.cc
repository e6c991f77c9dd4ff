// SPDX-License-Identifier: Apache-2.0
#include "server/api/background_loop.h"

#include <utility>

namespace ballast::server {

void BackgroundLoop::Start(std::function<void()> step, absl::Duration period) {
  step_ = std::move(step);
  thread_ = std::thread([this, period] { Loop(period); });
}

void BackgroundLoop::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

void BackgroundLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void BackgroundLoop::Loop(absl::Duration period) {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(
                                  +[](BackgroundLoop* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                                       self->mutex_) { return self->woken_ || self->stopping_; },
                                  this),
                              period);
      if (stopping_) return;
      woken_ = false;
    }
    step_();
  }
}

}  // namespace ballast::server
