// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JOB_VIEW_H_
#define BALLAST_SERVER_API_JOB_VIEW_H_

#include "ballast/v1/fine_tuning_job.pb.h"
#include "server/core/control_plane.h"
#include "server/core/job_state.h"

namespace ballast::server {

// Puts newer steps and the time left, which live in memory only, over the stored progress of a job.
inline void AddLiveProgress(ControlPlane& plane, v1::FineTuningJob& job) {
  // What is known of a worker of another server's may be a few seconds older than the record.
  if (!IsLeased(job.state())) return;
  const auto live = plane.LiveProgress(job.name());
  if (!live.has_value() || live->step() < job.progress().step()) return;
  v1::JobProgress& progress = *job.mutable_progress();
  progress.set_step(live->step());
  progress.set_total_steps(live->total_steps());
  progress.set_trained_tokens(live->trained_tokens());
  if (live->has_time_left()) *progress.mutable_time_left() = live->time_left();
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JOB_VIEW_H_
