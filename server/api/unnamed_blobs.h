// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_UNNAMED_BLOBS_H_
#define BALLAST_SERVER_API_UNNAMED_BLOBS_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ballast::server {

// Blobs that a running call writes before the record that will name them is there. The call writes
// their prefix down as garbage first, and the transaction that adds the record strikes it off: what
// a crash leaves in between is deleted after the next start. Meanwhile this keeps this server's
// janitor away, and HoldBlobs (blob_hold.h) those of others.
// Thread safety: thread-safe.
class UnnamedBlobs {
 public:
  // Keeps a prefix while it lives. Movable; empty by default.
  class Hold {
   public:
    Hold() = default;
    Hold(UnnamedBlobs& blobs, std::string prefix) : blobs_(&blobs), prefix_(std::move(prefix)) {
      absl::MutexLock lock(&blobs_->mutex_);
      const auto is_free = [this]() ABSL_SHARED_LOCKS_REQUIRED(blobs_->mutex_) {
        return blobs_->deleting_.count(prefix_) == 0;
      };
      blobs_->mutex_.Await(absl::Condition(&is_free));
      blobs_->held_.insert(prefix_);
    }
    Hold(Hold&& other) noexcept
        : blobs_(std::exchange(other.blobs_, nullptr)), prefix_(std::move(other.prefix_)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(blobs_, other.blobs_);
      std::swap(prefix_, other.prefix_);
      return *this;
    }
    ~Hold() {
      if (blobs_ == nullptr) return;
      absl::MutexLock lock(&blobs_->mutex_);
      blobs_->held_.erase(blobs_->held_.find(prefix_));
    }

   private:
    UnnamedBlobs* blobs_ = nullptr;
    std::string prefix_;
  };

  // Those of `prefixes` that nothing holds, and nothing will until EndDeleting. Which of them are
  // still garbage is to be looked up afterwards: a hold may just have ended with its record stored.
  std::set<std::string> BeginDeleting(const std::vector<std::string>& prefixes) {
    absl::MutexLock lock(&mutex_);
    for (const std::string& prefix : prefixes) {
      if (held_.count(prefix) == 0) deleting_.insert(prefix);
    }
    return deleting_;
  }
  void EndDeleting() {
    absl::MutexLock lock(&mutex_);
    deleting_.clear();
  }

 private:
  absl::Mutex mutex_;
  // Two imports of the same files hold the same prefix.
  std::multiset<std::string> held_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> deleting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_UNNAMED_BLOBS_H_
