// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JOB_WATCH_H_
#define BALLAST_SERVER_API_JOB_WATCH_H_

#include <atomic>
#include <deque>
#include <string>

#include "ballast/v1/fine_tuning_service.pb.h"
#include "server/api/call.h"
#include "server/api/watch_hub.h"
#include "server/core/control_plane.h"
#include "server/core/job_catalog.h"

namespace ballast::server {

// One call of WatchFineTuningJob: replays events after the cursor, follows the job, and ends after
// the event of a final state. No thread waits for it: it runs when poked, when a message was
// written, or never. Deletes itself.
class JobWatch : public grpc::ServerWriteReactor<v1::WatchFineTuningJobResponse>, public Watcher {
 public:
  JobWatch(const ApiContext& api, grpc::CallbackServerContext* context, Principal who,
           const v1::WatchFineTuningJobRequest& request, JobCatalog& jobs, ControlPlane& plane,
           WatchHub& hub);

  void Poke() override;

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override { Poke(); }
  void OnDone() override;

  // Runs on the executor, never twice at once: sends the next message, ends the call, or rests.
  void Pump();
  // Fills the outbox. An error ends the call; true ends it with OK.
  absl::StatusOr<bool> Refill();
  absl::Status AddProgress(const v1::FineTuningJob& job);
  void End(const absl::Status& status) {
    call_.api().idle_streams.WaitFrom(context_, call_.Now());
    Finish(call_.End(status));
  }

  const Call call_;
  grpc::CallbackServerContext* const context_;
  const Principal who_;
  const std::string name_;
  JobCatalog& jobs_;
  ControlPlane& plane_;
  WatchHub& hub_;

  // Only Pump touches these.
  int64_t cursor_;
  bool final_sent_ = false;
  std::deque<v1::WatchFineTuningJobResponse> outbox_;
  std::string last_progress_;
  absl::Time last_progress_time_ = absl::InfinitePast();

  // Who runs: at kResting nobody does and Poke starts Pump; kPoked makes Pump look once more.
  enum State { kResting, kActive, kPoked };
  std::atomic<State> state_ = kActive;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JOB_WATCH_H_
