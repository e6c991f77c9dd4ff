// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_CLOCK_H_
#define BALLAST_COMMON_BASE_CLOCK_H_

#include <optional>

#include "absl/time/time.h"

namespace ballast {

// Where time comes from. Production code takes a Clock& rather than calling absl::Now(), so that
// tests can move time with FakeClock (common/base/testing/fake_clock.h) instead of sleeping. Thread
// safety: implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;

  // The system's time of day, as SlewedTime shows it: leases and timeouts outlive a clock that is
  // set. Never destroyed.
  static Clock& System();
};

// A time of day that never jumps: it goes by a steady clock and is drawn towards the wall clock by
// a tenth of the time that passes at most. Where somebody sets the wall clock by an hour, the time
// that is shown is right again ten hours later, and meanwhile no duration is off by more than a
// tenth. Thread safety: not thread-safe.
class SlewedTime {
 public:
  // `steady`: time since any fixed point, which never goes back.
  absl::Time At(absl::Time wall, absl::Duration steady);

 private:
  std::optional<absl::Time> shown_;
  absl::Duration steady_;
};

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_CLOCK_H_
