// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_FAIR_EXECUTOR_H_
#define BALLAST_SERVER_API_FAIR_EXECUTOR_H_

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ballast::server {

// Threads for long tasks of many tenants, who take turns (round-robin): however many one has given,
// another's first is next but one turn each. Of one tenant only so many run at once, so that where
// these are fewer than the threads another's need not even wait for one to end. Thread safety:
// thread-safe.
class FairExecutor {
 public:
  FairExecutor() = default;
  ~FairExecutor() { Stop(); }
  FairExecutor(const FairExecutor&) = delete;
  FairExecutor& operator=(const FairExecutor&) = delete;

  // Called once. `most_of_one`: tasks of one tenant that run at once, at least 1.
  void Start(int threads, int most_of_one);
  // As Executor::Stop.
  void Stop();

  // Runs `task` on one of the threads when it is the tenant's turn.
  void Run(const std::string& tenant, std::function<void()> task);

 private:
  struct Queue {
    std::deque<std::function<void()>> tasks;
    int running = 0;
  };

  void Loop();
  // Whose turn it is of those that may have one more running; the end for nobody's.
  std::list<std::string>::iterator Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasNextOrIsDone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Next() != turns_.end() || (stopping_ && turns_.empty());
  }

  absl::Mutex mutex_;
  int most_of_one_ ABSL_GUARDED_BY(mutex_) = 1;
  // By tenant; of those that have tasks, waiting or running.
  std::map<std::string, Queue> queues_ ABSL_GUARDED_BY(mutex_);
  // Those with waiting ones, each once, in the order of their turns.
  std::list<std::string> turns_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_FAIR_EXECUTOR_H_
