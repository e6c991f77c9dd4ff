// SPDX-License-Identifier: Apache-2.0
// Client::WatchJob: follows a job through broken connections.
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "common/base/error.h"

namespace ballast::client {
namespace {

bool HasEnded(const v1::FineTuningJob& job) {
  return job.state() == v1::FineTuningJob::SUCCEEDED || job.state() == v1::FineTuningJob::FAILED ||
         job.state() == v1::FineTuningJob::CANCELLED;
}

bool IsAtRest(v1::FineTuningJob::State state) {
  return state == v1::FineTuningJob::WITHHELD || state == v1::FineTuningJob::PAUSED;
}

}  // namespace

absl::StatusOr<v1::FineTuningJob> Client::WatchJob(std::string_view name, int64_t after_sequence,
                                                   const WatchHandlers& handlers) const {
  const std::string full_name = JobName(name);
  const RetryPolicy& retry = connection_->options().retry;
  int attempt = 1;
  auto last_state = v1::FineTuningJob::STATE_UNSPECIFIED;
  while (true) {
    grpc::ClientContext context;
    connection_->Prepare(context, connection_->options().stream_deadline);
    v1::WatchFineTuningJobRequest request;
    request.set_name(full_name);
    request.set_after_sequence(after_sequence);
    auto reader = jobs_->WatchFineTuningJob(&context, request);
    v1::WatchFineTuningJobResponse response;
    while (reader->Read(&response)) {
      attempt = 1;
      if (response.has_event()) {
        // A repeat would be a fault of the server; the caller is promised each sequence once.
        if (response.event().sequence() <= after_sequence) continue;
        after_sequence = response.event().sequence();
        if (response.event().has_state_changed()) {
          last_state = response.event().state_changed().state();
        }
        if (handlers.on_event) handlers.on_event(response.event());
      } else if (response.has_progress() && handlers.on_progress) {
        handlers.on_progress(response.progress());
      }
    }
    absl::Status status = connection_->Convert(reader->Finish());
    if (status.ok()) {
      absl::StatusOr<v1::FineTuningJob> job = GetJob(full_name);
      if (job.ok() && IsAtRest(job->state())) return job;
      // It was decided on or resumed since: the events of that are still to come.
      if (job.ok() && IsAtRest(last_state)) continue;
      if (job.ok() && HasEnded(*job)) return job;
      // A server that is about to stop ends its watches.
      status = job.ok() ? MakeError(absl::StatusCode::kUnavailable, "WATCH_ENDED_EARLY",
                                    absl::StrCat("the server ended the watch of ", full_name,
                                                 " before the job ended; watch it again"))
                        : job.status();
    }
    // No news until the stream's deadline is no failure while the server answers: the job waits.
    if (status.code() == absl::StatusCode::kDeadlineExceeded && GetJob(full_name).ok()) attempt = 0;
    if (!Connection::IsBroken(status) || attempt >= retry.max_reconnects) return status;
    // A deadline is this library's own way of noticing dead peers: no news for the caller.
    if (status.code() != absl::StatusCode::kDeadlineExceeded && handlers.on_reconnect) {
      handlers.on_reconnect(status);
    }
    connection_->Sleep(retry.Backoff(attempt, status));
    ++attempt;
  }
}

}  // namespace ballast::client
