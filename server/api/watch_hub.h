// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_WATCH_HUB_H_
#define BALLAST_SERVER_API_WATCH_HUB_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "server/api/executor.h"

namespace ballast::server {

// Somebody who follows a job. What the hub calls must not block or call the hub.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // The store has, or may have, something new.
  virtual void Poke() = 0;
  // How far the job is by now.
  virtual void Show(std::shared_ptr<const v1::JobProgress> progress) = 0;
  // The server stops.
  virtual void Stopping() = 0;
  // Sequence of the last event that it has read.
  virtual int64_t seen() const = 0;
};

// Who follows which job, and the threads that they run on: what watches read and send holds up
// nobody else's calls. A watcher reads the store when its job is known to have changed. Changes
// that nobody has told of are found by looking at the watched jobs in turn, many at once.
// Thread safety: thread-safe; a watcher is not called any more after Remove has returned.
class WatchHub {
 public:
  // Each job is looked at so often.
  static constexpr absl::Duration kLookPeriod = absl::Seconds(5);
  // And shows progress so often at most.
  static constexpr absl::Duration kProgressInterval = absl::Seconds(1);
  // Jobs of one look.
  static constexpr size_t kMostAtOnce = 100;

  // What is known of jobs, by name.
  struct Sources {
    // As LastEvents (last_events.h).
    std::function<absl::StatusOr<std::vector<std::optional<int64_t>>>(
        const std::vector<std::string>&)>
        last_events;
    // As ControlPlane::LiveProgress.
    std::function<std::optional<v1::JobProgress>(const std::string&)> progress;
  };

  explicit WatchHub(Sources sources) : sources_(std::move(sources)) {}

  void Start(int threads) { executor_.Start(threads); }
  // As Executor::Stop.
  void Stop() { executor_.Stop(); }
  // Runs a watcher's task on one of the threads.
  void Run(std::function<void()> task) { executor_.Run(std::move(task)); }

  void Add(const std::string& job, Watcher* watcher);
  void Remove(const std::string& job, Watcher* watcher);
  // Pokes those who follow `job`.
  void Changed(const std::string& job);
  // `job` has newer progress: those who follow it are shown it soon.
  void Moved(const std::string& job);
  // Notices may have been missed: all jobs are looked at soon.
  void Missed();

  // Has Step run on one of the threads, unless it runs there already. Call it several times a
  // second.
  void Tick(absl::Time now);
  // Shows progress that is due, and looks at the jobs whose turn it is. One call at a time.
  void Step(absl::Time now);

  // From now on watches end with UNAVAILABLE (SERVER_STOPPING).
  void Drain();
  bool draining() const { return draining_.load(); }
  int64_t count() const { return count_.load(); }

 private:
  struct Watched {
    std::set<Watcher*> watchers;
    absl::Time shown = absl::InfinitePast();  // when progress was
  };

  void ShowProgress(absl::Time now);
  // Jobs whose progress is to be shown now; the others stay.
  std::vector<std::string> TakeMoved(absl::Time now);
  void Look(absl::Time now);
  // The jobs whose turn it is.
  std::vector<std::string> NextToLookAt(absl::Time now);
  // Failures of the store.
  absl::Status LookAt(const std::vector<std::string>& jobs);
  // Calls `act` with each who follows `job`.
  template <typename Act>
  void ForEach(const std::string& job, Act act);

  const Sources sources_;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> stepping_ = false;
  std::atomic<int64_t> count_ = 0;
  mutable absl::Mutex mutex_;
  std::map<std::string, Watched> watched_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> moved_ ABSL_GUARDED_BY(mutex_);  // some of watched_
  bool missed_ ABSL_GUARDED_BY(mutex_) = false;

  // Step's own.
  absl::Time last_look_ = absl::InfinitePast();
  double owed_ = 0;           // jobs to be looked at
  std::string looked_until_;  // the job before the next one's turn
  bool failing_ = false;
  Executor executor_;  // ends before the rest
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_WATCH_HUB_H_
