// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_EXECUTOR_H_
#define BALLAST_SERVER_API_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ballast::server {

// Threads that run handlers, so that those that wait for the disk do not hold up gRPC's own
// threads. Thread safety: thread-safe.
class Executor {
 public:
  Executor() = default;
  ~Executor() { Stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  void Start(int threads);
  // Runs what was given before, then ends the threads. Idempotent. Tasks given later run in the
  // caller.
  void Stop();

  // Runs `task` soon on one of the threads.
  void Run(std::function<void()> task);

 private:
  void Loop();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_EXECUTOR_H_
