// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <algorithm>
#include <chrono>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace ballast {
namespace {

constexpr double kMostSlew = 0.1;

class SystemClock : public Clock {
 public:
  absl::Time Now() override {
    absl::MutexLock lock(&mutex_);
    return time_.At(absl::Now(),
                    absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()));
  }

 private:
  absl::Mutex mutex_;
  SlewedTime time_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Time SlewedTime::At(absl::Time wall, absl::Duration steady) {
  if (!shown_.has_value()) {
    shown_ = wall;
  } else {
    const absl::Duration passed = steady - steady_;
    const absl::Duration most = passed * kMostSlew;
    *shown_ += passed;
    *shown_ += std::clamp(wall - *shown_, -most, most);
  }
  steady_ = steady;
  return *shown_;
}

Clock& Clock::System() {
  static SystemClock* const clock = new SystemClock;
  return *clock;
}

}  // namespace ballast
