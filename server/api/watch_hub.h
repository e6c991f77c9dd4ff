// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_WATCH_HUB_H_
#define BALLAST_SERVER_API_WATCH_HUB_H_

#include <map>
#include <set>
#include <string>

#include "absl/synchronization/mutex.h"

namespace ballast::server {

// Somebody who follows a job.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // There may be something new. Must not block or call the hub.
  virtual void Poke() = 0;
};

// Who follows which job. Thread safety: thread-safe; a watcher is not poked after Remove has
// returned.
class WatchHub {
 public:
  void Add(const std::string& job, Watcher* watcher);
  void Remove(const std::string& job, Watcher* watcher);
  // Pokes those who follow `job`.
  void Changed(const std::string& job);
  // Pokes all: time has passed, or the server stops.
  void PokeAll();
  // From now on watches end with UNAVAILABLE (SERVER_STOPPING).
  void Drain();
  bool draining() const;
  int64_t count() const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, std::set<Watcher*>> watchers_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_WATCH_HUB_H_
