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
constexpr absl::Duration kProgressInterval = absl::Seconds(1);

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
  api.executor.Run([this] { Pump(); });
}

void JobWatch::Poke() {
  if (state_.exchange(kPoked) == kResting) call_.api().executor.Run([this] { Pump(); });
}

void JobWatch::OnWriteDone(bool ok) {
  call_.api().idle_streams.Suspend(context_);
  call_.api().executor.Run([this, ok] {
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
    if (context_->IsCancelled()) return End(absl::CancelledError("the client went away"));
    if (!outbox_.empty()) {
      const v1::WatchFineTuningJobResponse& next = outbox_.front();
      call_.api().idle_streams.WaitFrom(context_, call_.Now());
      StartWrite(&next);
      return;
    }
    // Set before looking, so that what happens while looking is looked at again.
    state_.store(kActive);
    const absl::StatusOr<bool> ended = Refill();
    if (!ended.ok() || *ended) return End(ended.status());
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
  BALLAST_ASSIGN_OR_RETURN(const v1::FineTuningJob job, jobs_.Get(who_.tenant, parsed));
  v1::ListFineTuningJobEventsRequest list;
  list.set_parent(name_);
  list.set_after_sequence(cursor_);
  list.set_page_size(kEventsAtOnce);
  BALLAST_ASSIGN_OR_RETURN(auto events, jobs_.ListEvents(who_.tenant, list));
  for (v1::JobEvent& event : *events.mutable_events()) {
    cursor_ = event.sequence();
    final_sent_ = final_sent_ || IsFinal(event.state_changed().state());
    *outbox_.emplace_back().mutable_event() = std::move(event);
  }
  if (!outbox_.empty()) return false;
  // The cursor of the caller was at the end already.
  if (IsFinal(job.state()) || IsAtRest(job.state())) return true;
  BALLAST_RETURN_IF_ERROR(AddProgress(job));
  return false;
}

absl::Status JobWatch::AddProgress(const v1::FineTuningJob& stored) {
  if (stored.state() != v1::FineTuningJob::RUNNING) return absl::OkStatus();
  const absl::Time now = call_.Now();
  if (now < last_progress_time_ + kProgressInterval) return absl::OkStatus();
  v1::FineTuningJob job = stored;
  AddLiveProgress(plane_, job);
  if (!job.has_progress()) return absl::OkStatus();
  std::string bytes = job.progress().SerializeAsString();
  if (bytes == last_progress_) return absl::OkStatus();
  last_progress_ = std::move(bytes);
  last_progress_time_ = now;
  *outbox_.emplace_back().mutable_progress() = job.progress();
  return absl::OkStatus();
}

}  // namespace ballast::server
