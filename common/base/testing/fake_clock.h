// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_TESTING_FAKE_CLOCK_H_
#define BALLAST_COMMON_BASE_TESTING_FAKE_CLOCK_H_

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace ballast::testing {

// A clock that moves only when told to.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time now = absl::FromUnixSeconds(1'700'000'000)) : now_(now) {}
  absl::Time Now() override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::testing

#endif  // BALLAST_COMMON_BASE_TESTING_FAKE_CLOCK_H_
