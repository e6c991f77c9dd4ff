// SPDX-License-Identifier: Apache-2.0
// How fast the queue moves, and what that tells of when a job starts. Virtual time (fair_share.h)
// goes on by the tags of the jobs that are taken; while there are jobs that wait, so many tokens of
// it go by in a second as all workers train, divided by the weight of the tenants that wait. So the
// distance of a job's tag from it is the time that the job has to wait, without a look at what
// others wait for. Of that tenants see coarse bounds (T1).
#ifndef BALLAST_SERVER_CORE_QUEUE_CLOCK_H_
#define BALLAST_SERVER_CORE_QUEUE_CLOCK_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// Virtual time went on by `tokens`, to the tag of a job that was taken at `now`. `waited`: how long
// that job could have run before, had there been a worker; zero where it had to wait for something
// else, too. Only times through which a job waited for a worker tell how fast workers are.
void NoteTaken(QueueClockRecord& clock, int64_t tokens, absl::Duration waited, absl::Time now);

// Bounds of the time until something happens.
struct Bounds {
  absl::Duration earliest;
  std::optional<absl::Duration> latest;  // empty: nobody knows
};

// When a job whose tag lies `tokens` after virtual time starts; empty where too little is known.
// It is off by a factor of three at most as long as tenants come, go and train as they did of late,
// and by the time until the next worker is free.
std::optional<Bounds> StartOf(const QueueClockRecord& clock, int64_t tokens);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_QUEUE_CLOCK_H_
