// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_CLOCK_H_
#define BALLAST_COMMON_BASE_CLOCK_H_

#include "absl/time/time.h"

namespace ballast {

// Where time comes from. Production code takes a Clock& rather than calling absl::Now(), so that
// tests can move time with FakeClock (common/base/testing/fake_clock.h) instead of sleeping. Thread
// safety: implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;

  // The system's clock. Never destroyed.
  static Clock& System();
};

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_CLOCK_H_
