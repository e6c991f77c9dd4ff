// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_hub.h"

namespace ballast::server {

void WatchHub::Add(const std::string& job, Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_[job].insert(watcher);
}

void WatchHub::Remove(const std::string& job, Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  const auto it = watchers_.find(job);
  if (it == watchers_.end()) return;
  it->second.erase(watcher);
  if (it->second.empty()) watchers_.erase(it);
}

void WatchHub::Changed(const std::string& job) {
  absl::MutexLock lock(&mutex_);
  const auto it = watchers_.find(job);
  if (it == watchers_.end()) return;
  for (Watcher* watcher : it->second) watcher->Poke();
}

void WatchHub::PokeAll() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [job, watchers] : watchers_) {
    for (Watcher* watcher : watchers) watcher->Poke();
  }
}

void WatchHub::Drain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  PokeAll();
}

bool WatchHub::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

int64_t WatchHub::count() const {
  absl::MutexLock lock(&mutex_);
  int64_t count = 0;
  for (const auto& [job, watchers] : watchers_) count += static_cast<int64_t>(watchers.size());
  return count;
}

}  // namespace ballast::server
