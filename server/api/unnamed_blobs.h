// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_UNNAMED_BLOBS_H_
#define BALLAST_SERVER_API_UNNAMED_BLOBS_H_

#include <set>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace ballast::server {

// Blobs that a running call writes before the record that will name them is there. The call writes
// their prefix down as garbage first, and the transaction that adds the record strikes it off: what
// a crash leaves in between is deleted after the next start. Meanwhile this keeps the janitor away.
// Thread safety: thread-safe.
class UnnamedBlobs {
 public:
  // Keeps a prefix while it lives. Movable; empty by default.
  class Hold {
   public:
    Hold() = default;
    Hold(UnnamedBlobs& blobs, std::string prefix) : blobs_(&blobs), prefix_(std::move(prefix)) {
      absl::MutexLock lock(&blobs_->mutex_);
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

  // Held by the janitor from before it reads what is garbage until that is deleted: in between no
  // hold begins or ends.
  absl::Mutex& mutex() ABSL_LOCK_RETURNED(mutex_) { return mutex_; }
  bool IsHeld(const std::string& prefix) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return held_.count(prefix) != 0;
  }

 private:
  absl::Mutex mutex_;
  // Two imports of the same files hold the same prefix.
  std::multiset<std::string> held_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_UNNAMED_BLOBS_H_
