// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_BACKGROUND_LOOP_H_
#define BALLAST_SERVER_API_BACKGROUND_LOOP_H_

#include <functional>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ballast::server {

// A thread that runs a step when it is woken, and at the latest every `period`. Thread safety:
// thread-safe; Start is called once.
class BackgroundLoop {
 public:
  BackgroundLoop() = default;
  ~BackgroundLoop() { Stop(); }
  BackgroundLoop(const BackgroundLoop&) = delete;
  BackgroundLoop& operator=(const BackgroundLoop&) = delete;

  void Start(std::function<void()> step, absl::Duration period);
  // Runs the step once more soon. Harmless before Start and after Stop.
  void Wake();
  // Ends the thread after the step that runs. Idempotent.
  void Stop();

 private:
  void Loop(absl::Duration period);

  std::function<void()> step_;
  absl::Mutex mutex_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_BACKGROUND_LOOP_H_
