// SPDX-License-Identifier: Apache-2.0
#include "server/core/queue_clock.h"

#include <algorithm>
#include <iterator>

#include "server/core/records.h"

namespace ballast::server {
namespace {

// What was seen longer ago than about this counts less and less.
constexpr double kMemorySeconds = 3600;
// Less than this tells nothing.
constexpr double kLeastSeconds = 10, kLeastClaims = 2;
// How far an expectation may be off in either direction.
constexpr double kFactor = 3;

// What bounds are rounded to, away from each other.
constexpr absl::Duration kMarks[] = {absl::ZeroDuration(), absl::Minutes(1), absl::Minutes(5),
                                     absl::Minutes(15),    absl::Hours(1),   absl::Hours(4),
                                     absl::Hours(12),      absl::Hours(24),  absl::Hours(72)};

}  // namespace

void NoteTaken(QueueClockRecord& clock, int64_t tokens, absl::Duration waited, absl::Time now) {
  const bool known = clock.has_last_taken();
  const absl::Duration passed =
      known ? now - FromTimestamp(clock.last_taken()) : absl::ZeroDuration();
  *clock.mutable_last_taken() = ToTimestamp(now);
  // A clock that was set back says nothing; nor does a time through part of which nobody waited.
  if (!known || passed < absl::ZeroDuration() || waited < passed) return;
  if (clock.busy_seconds() > kMemorySeconds) {
    clock.set_busy_seconds(clock.busy_seconds() / 2);
    clock.set_busy_tokens(clock.busy_tokens() / 2);
    clock.set_busy_claims(clock.busy_claims() / 2);
  }
  clock.set_busy_seconds(clock.busy_seconds() + absl::ToDoubleSeconds(passed));
  clock.set_busy_tokens(clock.busy_tokens() + static_cast<double>(tokens));
  clock.set_busy_claims(clock.busy_claims() + 1);
}

std::optional<Bounds> StartOf(const QueueClockRecord& clock, int64_t tokens) {
  if (clock.busy_seconds() < kLeastSeconds || clock.busy_claims() < kLeastClaims ||
      clock.busy_tokens() <= 0) {
    return std::nullopt;
  }
  const absl::Duration wait =
      absl::Seconds(clock.busy_seconds() / clock.busy_tokens() * std::max<double>(0, tokens));
  const absl::Duration until_next = absl::Seconds(clock.busy_seconds() / clock.busy_claims());
  Bounds bounds;
  bounds.earliest = *(std::upper_bound(std::begin(kMarks), std::end(kMarks), wait / kFactor) - 1);
  const absl::Duration latest = (wait + until_next) * kFactor;
  const auto mark = std::lower_bound(std::begin(kMarks), std::end(kMarks), latest);
  if (mark != std::end(kMarks)) bounds.latest = *mark;
  return bounds;
}

}  // namespace ballast::server
