// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include "absl/time/clock.h"

namespace ballast {
namespace {

class SystemClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
};

}  // namespace

Clock& Clock::System() {
  static SystemClock* const clock = new SystemClock;
  return *clock;
}

}  // namespace ballast
