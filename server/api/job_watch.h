// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_JOB_WATCH_H_
#define BALLAST_SERVER_API_JOB_WATCH_H_

#include <atomic>
#include <deque>
#include <memory>
#include <string>

#include "ballast/v1/fine_tuning_service.pb.h"
#include "server/api/call.h"
#include "server/api/watch_hub.h"
#include "server/core/control_plane.h"
#include "server/core/job_catalog.h"

namespace ballast::server {

// One call of WatchFineTuningJob: replays events after the cursor, follows the job, and ends after
// the event of a final state. No thread waits for it: it runs when the hub calls it, when a message
// was written, or never, and reads the store only where there may be something new. Deletes itself.
class JobWatch : public grpc::ServerWriteReactor<v1::WatchFineTuningJobResponse>, public Watcher {
 public:
  JobWatch(const ApiContext& api, grpc::CallbackServerContext* context, Principal who,
           const v1::WatchFineTuningJobRequest& request, JobCatalog& jobs, ControlPlane& plane,
           WatchHub& hub);

  void Poke() override;
  void Show(std::shared_ptr<const v1::JobProgress> progress) override;
  void Stopping() override { Wake(); }
  int64_t seen() const override { return cursor_.load(); }

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override { Wake(); }
  void OnDone() override;

  // Has Pump run.
  void Wake();
  // Runs on the hub's threads, never twice at once: sends the next message, ends the call, or
  // rests.
  void Pump();
  // Fills the outbox from the store. An error ends the call; true ends it with OK.
  absl::StatusOr<bool> Refill();
  // Puts what was shown into the outbox.
  void TakeShown();
  // The same with `progress`, if it is new to the client.
  void AddProgress(const v1::JobProgress& progress);
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

  std::atomic<int64_t> cursor_;  // only Pump moves it

  // Only Pump touches these.
  bool final_sent_ = false;
  bool running_ = false;      // by the record, as it was read last
  v1::JobProgress progress_;  // so, too
  std::deque<v1::WatchFineTuningJobResponse> outbox_;
  std::string last_progress_;
  absl::Time last_progress_time_ = absl::InfinitePast();

  std::atomic<bool> look_ = true;  // the store may have something new
  absl::Mutex shown_mutex_;
  std::shared_ptr<const v1::JobProgress> shown_ ABSL_GUARDED_BY(shown_mutex_);

  // Who runs: at kResting nobody does and Wake starts Pump; kWoken makes Pump go on once more.
  enum State { kResting, kActive, kWoken };
  std::atomic<State> state_ = kActive;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_JOB_WATCH_H_
