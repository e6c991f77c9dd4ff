// SPDX-License-Identifier: Apache-2.0
#include "server/core/lease_table.h"

namespace ballast::server {
namespace {

// To which the time left is rounded where running time depends on the rows (S2).
constexpr absl::Duration kCoarseTimeLeft = absl::Minutes(1);

}  // namespace

void LiveLease::Hear(const worker::v1::SynchronizeRequest::Busy& busy, absl::Time now) {
  heard = true;
  // Before the total is known the training has not begun, and the step of its checkpoint is not
  // reported yet.
  if (evaluations_at_first < 0) evaluations_at_first = busy.evaluations_size();
  // What is reported by row is of the last evaluation, which may be long ago: the next one is new.
  const bool current = !coarse || busy.evaluations_size() > evaluations_at_first;
  if (!measured && current && busy.total_steps() > 0) {
    measured = true;
    measured_from = now;
    measured_step = busy.step();
    measured_tokens = busy.trained_tokens();
  }
  if (coarse && busy.evaluations_size() <= evaluations) return;
  evaluations = busy.evaluations_size();
  shown = true;
  progress.set_step(busy.step());
  progress.set_total_steps(busy.total_steps());
  progress.set_trained_tokens(busy.trained_tokens());
  const int64_t done = busy.step() - measured_step;
  if (measured && done > 0 && busy.total_steps() >= busy.step()) {
    const absl::Duration per_step = (now - measured_from) / done;
    absl::Duration left = per_step * (busy.total_steps() - busy.step());
    if (coarse) left = absl::Ceil(left, kCoarseTimeLeft);
    progress.mutable_time_left()->set_seconds(absl::ToInt64Seconds(left));
  }
}

}  // namespace ballast::server
