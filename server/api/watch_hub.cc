// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_hub.h"

#include <algorithm>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {

void WatchHub::Add(const std::string& job, Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watched_[job].watchers.insert(watcher);
  ++count_;
}

void WatchHub::Remove(const std::string& job, Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  const auto it = watched_.find(job);
  if (it == watched_.end() || it->second.watchers.erase(watcher) == 0) return;
  --count_;
  if (!it->second.watchers.empty()) return;
  watched_.erase(it);
  moved_.erase(job);
}

template <typename Act>
void WatchHub::ForEach(const std::string& job, Act act) {
  absl::MutexLock lock(&mutex_);
  const auto it = watched_.find(job);
  if (it == watched_.end()) return;
  for (Watcher* watcher : it->second.watchers) act(*watcher);
}

void WatchHub::Changed(const std::string& job) {
  ForEach(job, [](Watcher& watcher) { watcher.Poke(); });
}

void WatchHub::Moved(const std::string& job) {
  absl::MutexLock lock(&mutex_);
  if (watched_.count(job) != 0) moved_.insert(job);
}

void WatchHub::Missed() {
  absl::MutexLock lock(&mutex_);
  missed_ = true;
}

void WatchHub::Tick(absl::Time now) {
  if (stepping_.exchange(true)) return;
  executor_.Run([this, now] {
    Step(now);
    stepping_.store(false);
  });
}

void WatchHub::Step(absl::Time now) {
  ShowProgress(now);
  Look(now);
}

void WatchHub::ShowProgress(absl::Time now) {
  for (const std::string& job : TakeMoved(now)) {
    auto found = sources_.progress(job);
    if (!found.has_value()) continue;
    const auto progress = std::make_shared<const v1::JobProgress>(*std::move(found));
    ForEach(job, [&](Watcher& watcher) { watcher.Show(progress); });
  }
}

std::vector<std::string> WatchHub::TakeMoved(absl::Time now) {
  std::vector<std::string> taken;
  absl::MutexLock lock(&mutex_);
  for (auto it = moved_.begin(); it != moved_.end();) {
    absl::Time& shown = watched_.at(*it).shown;
    if (now >= shown && now < shown + kProgressInterval) {  // the clock may have been set back
      ++it;
      continue;
    }
    shown = now;
    taken.push_back(*it);
    it = moved_.erase(it);
  }
  return taken;
}

void WatchHub::Look(absl::Time now) {
  const std::vector<std::string> jobs = NextToLookAt(now);
  for (size_t begin = 0; begin < jobs.size(); begin += kMostAtOnce) {
    const size_t end = std::min(begin + kMostAtOnce, jobs.size());
    const absl::Status status = LookAt(
        {jobs.begin() + static_cast<ptrdiff_t>(begin), jobs.begin() + static_cast<ptrdiff_t>(end)});
    const bool failed_before = std::exchange(failing_, !status.ok());
    if (status.ok()) continue;
    if (!failed_before) {
      spdlog::warn("watched jobs cannot be looked at, it is tried again: {}", ForLog(status));
    }
    if (!absl::IsUnavailable(status)) continue;
    Missed();
    return;
  }
}

std::vector<std::string> WatchHub::NextToLookAt(absl::Time now) {
  std::vector<std::string> jobs;
  absl::MutexLock lock(&mutex_);
  const auto all = static_cast<double>(watched_.size());
  const double rounds = std::clamp(absl::FDivDuration(now - last_look_, kLookPeriod), 0.0, 1.0);
  owed_ = std::exchange(missed_, false) ? all : std::min(owed_ + rounds * all, all);
  last_look_ = now;
  auto it = watched_.upper_bound(looked_until_);
  for (; owed_ >= 1; --owed_) {
    if (it == watched_.end()) it = watched_.begin();
    jobs.push_back(it->first);
    ++it;
  }
  if (!jobs.empty()) looked_until_ = jobs.back();
  return jobs;
}

absl::Status WatchHub::LookAt(const std::vector<std::string>& jobs) {
  BALLAST_ASSIGN_OR_RETURN(const auto last, sources_.last_events(jobs));
  for (size_t i = 0; i < jobs.size(); ++i) {
    ForEach(jobs[i], [&](Watcher& watcher) {
      if (!last[i].has_value() || watcher.seen() < *last[i]) watcher.Poke();
    });
  }
  return absl::OkStatus();
}

void WatchHub::Drain() {
  draining_.store(true);
  absl::MutexLock lock(&mutex_);
  for (const auto& [job, watched] : watched_) {
    for (Watcher* watcher : watched.watchers) watcher->Stopping();
  }
}

}  // namespace ballast::server
