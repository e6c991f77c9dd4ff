// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JOB_VIEW_H_
#define BALLAST_SERVER_API_JOB_VIEW_H_

#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "server/core/control_plane.h"
#include "server/core/job_state.h"
#include "server/core/waiting.h"

namespace ballast::server {

// Puts newer steps and the time left over the stored progress of a job that a worker is at.
inline void PutOver(const v1::JobProgress& live, v1::JobProgress& progress) {
  // What is known of a worker of another server's may be a few seconds older than the record.
  if (live.step() < progress.step()) return;
  progress.set_step(live.step());
  progress.set_total_steps(live.total_steps());
  progress.set_trained_tokens(live.trained_tokens());
  if (live.has_time_left()) *progress.mutable_time_left() = live.time_left();
}

// The same with what lives in memory only.
inline void AddLiveProgress(ControlPlane& plane, v1::FineTuningJob& job) {
  if (!IsLeased(job.state())) return;
  const auto live = plane.LiveProgress(job.name());
  if (live.has_value()) PutOver(*live, *job.mutable_progress());
}

// What only the control plane knows of a job: how far it is, or that no worker is there for it.
inline void AddLive(ControlPlane& plane, absl::Time now, v1::FineTuningJob& job) {
  AddLiveProgress(plane, job);
  if (job.waiting().reason() == v1::Waiting::WORKERS_BUSY && !plane.HasWorkers(now)) {
    SayNoWorkers(*job.mutable_waiting());
  }
}

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JOB_VIEW_H_
