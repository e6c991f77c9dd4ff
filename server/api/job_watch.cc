// SPDX-License-Identifier: Apache-2.0
#include "server/api/job_watch.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/job_view.h"
#include "server/core/job_state.h"

namespace ballast::server {
namespace {

constexpr int kEventsAtOnce = 100;

}  // namespace

JobWatch::JobWatch(const ApiContext& api, grpc::CallbackServerContext* context, Principal who,
                   const v1::WatchFineTuningJobRequest& request, JobCatalog& jobs,
                   ControlPlane& plane, WatchHub& hub)
    : call_(api, "FineTuningService/WatchFineTuningJob"),
      context_(context),
      who_(std::move(who)),
      name_(request.name()),
      jobs_(jobs),
      plane_(plane),
      hub_(hub),
      cursor_(request.after_sequence()) {
  hub_.Add(name_, this);
  hub_.Run([this] { Pump(); });
}

void JobWatch::Poke() {
  look_.store(true);
  Wake();
}

void JobWatch::Show(std::shared_ptr<const v1::JobProgress> progress) {
  {
    absl::MutexLock lock(&shown_mutex_);
    shown_ = std::move(progress);
  }
  Wake();
}

void JobWatch::Wake() {
  if (state_.exchange(kWoken) == kResting) hub_.Run([this] { Pump(); });
}

void JobWatch::OnWriteDone(bool ok) {
  call_.api().idle_streams.Suspend(context_);
  hub_.Run([this, ok] {
    if (!ok) {
      End(absl::CancelledError("the client went away"));
      return;
    }
    outbox_.pop_front();
    Pump();
  });
}

void JobWatch::OnDone() {
  call_.api().idle_streams.Remove(context_);
  hub_.Remove(name_, this);
  delete this;
}

void JobWatch::Pump() {
  while (true) {
    // Set before looking, so that what happens while looking is looked at again.
    state_.store(kActive);
    if (context_->IsCancelled()) return End(absl::CancelledError("the client went away"));
    if (!outbox_.empty()) {
      const v1::WatchFineTuningJobResponse& next = outbox_.front();
      call_.api().idle_streams.WaitFrom(context_, call_.Now());
      StartWrite(&next);
      return;
    }
    if (look_.exchange(false)) {
      const absl::StatusOr<bool> ended = Refill();
      if (!ended.ok() || *ended) return End(ended.status());
    } else {
      TakeShown();
    }
    if (!outbox_.empty()) continue;
    if (hub_.draining()) {
      return End(WithRetry(MakeError(absl::StatusCode::kUnavailable, "SERVER_STOPPING",
                                     "the server stops; watch again from the last sequence seen"),
                           absl::Seconds(2)));
    }
    State active = kActive;
    // From a successful exchange on another thread may run and delete this object.
    if (state_.compare_exchange_strong(active, kResting)) return;
  }
}

absl::StatusOr<bool> JobWatch::Refill() {
  if (final_sent_) return true;
  BALLAST_ASSIGN_OR_RETURN(const TenantName parsed, ParseJobName(name_, "name"));
  // The job is read before its events: when it has ended by then, all of its events are there.
  BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job, jobs_.GetStored(who_.tenant, parsed));
  v1::ListFineTuningJobEventsRequest list;
  list.set_parent(name_);
  list.set_after_sequence(cursor_.load());
  list.set_page_size(kEventsAtOnce);
  BALLAST_ASSIGN_OR_RETURN(auto events, jobs_.ListEvents(who_.tenant, list));
  for (v1::JobEvent& event : *events.mutable_events()) {
    cursor_.store(event.sequence());
    final_sent_ = final_sent_ || IsFinal(event.state_changed().state());
    *outbox_.emplace_back().mutable_event() = std::move(event);
  }
  if (!outbox_.empty()) {
    look_.store(true);  // until there are no more
    return false;
  }
  // The cursor of the caller was at the end already.
  if (IsFinal(job.state()) || IsAtRest(job.state())) return true;
  running_ = job.state() == v1::FineTuningJob::RUNNING;
  progress_ = job.progress();
  if (!running_) return false;
  AddLiveProgress(plane_, job);
  if (job.has_progress()) AddProgress(job.progress());
  return false;
}

void JobWatch::TakeShown() {
  std::shared_ptr<const v1::JobProgress> shown;
  {
    absl::MutexLock lock(&shown_mutex_);
    shown.swap(shown_);
  }
  if (shown == nullptr || !running_) return;
  v1::JobProgress progress = progress_;
  PutOver(*shown, progress);
  AddProgress(progress);
}

void JobWatch::AddProgress(const v1::JobProgress& progress) {
  std::string bytes = progress.SerializeAsString();
  if (bytes == last_progress_) return;
  const absl::Time now = call_.Now();
  if (now >= last_progress_time_ && now < last_progress_time_ + WatchHub::kProgressInterval) {
    hub_.Moved(name_);  // to be shown once more
    return;
  }
  last_progress_ = std::move(bytes);
  last_progress_time_ = now;
  *outbox_.emplace_back().mutable_progress() = progress;
}

}  // namespace ballast::server
