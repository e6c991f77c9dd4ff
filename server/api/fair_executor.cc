// SPDX-License-Identifier: Apache-2.0
#include "server/api/fair_executor.h"

#include <algorithm>
#include <utility>

namespace ballast::server {

void FairExecutor::Start(int threads, int most_of_one) {
  {
    absl::MutexLock lock(&mutex_);
    most_of_one_ = most_of_one;
  }
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

void FairExecutor::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void FairExecutor::Run(const std::string& tenant, std::function<void()> task) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) {
      Queue& queue = queues_[tenant];
      if (queue.tasks.empty()) turns_.push_back(tenant);
      queue.tasks.push_back(std::move(task));
      return;
    }
  }
  task();
}

std::list<std::string>::iterator FairExecutor::Next() {
  return std::find_if(turns_.begin(), turns_.end(),
                      [this](const std::string& tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                        return queues_[tenant].running < most_of_one_;
                      });
}

void FairExecutor::Loop() {
  while (true) {
    std::function<void()> task;
    std::string tenant;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](FairExecutor* self)
               ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mutex_) { return self->HasNextOrIsDone(); },
          this));
      const auto turn = Next();
      if (turn == turns_.end()) return;
      tenant = *turn;
      turns_.erase(turn);
      Queue& queue = queues_[tenant];
      task = std::move(queue.tasks.front());
      queue.tasks.pop_front();
      ++queue.running;
      if (!queue.tasks.empty()) turns_.push_back(tenant);
    }
    task();
    // What it holds goes before its turn ends.
    task = nullptr;
    absl::MutexLock lock(&mutex_);
    Queue& queue = queues_[tenant];
    --queue.running;
    if (queue.running == 0 && queue.tasks.empty()) queues_.erase(tenant);
  }
}

}  // namespace ballast::server
