// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/agent.h"

#include <algorithm>
#include <new>
#include <utility>

#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "worker/agent/job_error.h"
#include "worker/agent/status_text.h"
#include "worker/agent/task.h"

namespace ballast::worker::agent {
namespace {

// The server holds an idle worker's call for about 20 s.
constexpr absl::Duration kPollTimeout = absl::Seconds(90);
// The server reads the files of a result before it answers.
constexpr absl::Duration kReportTimeout = absl::Minutes(5);
constexpr absl::Duration kReportTimeoutWhenStopping = absl::Seconds(30);
constexpr absl::Duration kGoodbyeTimeout = absl::Seconds(2);
constexpr absl::Duration kDefaultInterval = absl::Seconds(2);

// Waiting for the server, longer each time.
class Backoff {
 public:
  explicit Backoff(const WorkerClientOptions& options)
      : first_(options.first_backoff), longest_(options.longest_backoff), next_(first_) {}
  void Reset() { next_ = first_; }
  absl::Duration Next() { return std::exchange(next_, std::min(2 * next_, longest_)); }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  absl::Duration next_;
};

absl::Duration IntervalOf(const pb::SynchronizeResponse& response) {
  if (!response.has_heartbeat_interval()) return kDefaultInterval;
  return ToDuration(response.heartbeat_interval());
}

}  // namespace

Agent::Agent(const AgentOptions& options, WorkerClient& client, VectorVault& vault,
             BaseLoader::EngineFactory load_engine, BaseLoader::TextFactory load_text, Clock& clock)
    : options_(options),
      client_(client),
      vault_(vault),
      clock_(clock),
      cache_(options.cache_dir),
      bases_(cache_, std::move(load_engine), std::move(load_text)),
      sampler_(client, metrics_) {}

Agent::~Agent() { Stop(); }

absl::Status Agent::Start() {
  BALLAST_RETURN_IF_ERROR(cache_.Open());
  if (!options_.metrics_address.empty() && options_.metrics_address != "off") {
    BALLAST_RETURN_IF_ERROR(metrics_.Serve(options_.metrics_address));
  }
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Agent::Drain() {
  drain_.Cancel();
  absl::MutexLock lock(&mutex_);
  if (session_ != nullptr) session_->Drain();
}

void Agent::Stop() {
  Drain();
  if (thread_.joinable()) thread_.join();
}

pb::SynchronizeRequest Agent::Identity() {
  pb::SynchronizeRequest request;
  const LoadedBase* base = bases_.current();
  request.set_device(base != nullptr ? base->info.device : options_.device);
  request.set_version(options_.version);
  request.set_draining(draining());
  return request;
}

void Agent::Run() {
  Backoff backoff(client_.options());
  int failures = 0;
  while (!draining()) {
    pb::SynchronizeRequest request = Identity();
    request.mutable_idle();
    const absl::Time asked = clock_.Now();
    auto response = client_.Synchronize(std::move(request), kPollTimeout, drain_);
    if (response.ok()) {
      // A call that has nothing to bring is held. One that was not makes room for another worker's
      // with the same id, or the server is stopping: asking at once would go on forever.
      const absl::Duration rest = IntervalOf(*response) - (clock_.Now() - asked);
      if (!response->has_work() && response->samples().empty() && rest > absl::ZeroDuration()) {
        drain_.WaitFor(rest);
      }
      if (failures > 0) spdlog::info("the server answers again");
      failures = 0;
      backoff.Reset();
      Handle(*std::move(response));
      continue;
    }
    if (draining()) break;
    const absl::Duration wait = backoff.Next();
    if (failures++ % 20 == 0) {
      spdlog::warn("the server at {} does not give work, trying on: {}",
                   client_.options().server_address, StatusText(response.status()));
    }
    drain_.WaitFor(wait);
  }
  sampler_.RefuseAll();
  SayGoodbye();
}

void Agent::Handle(pb::SynchronizeResponse response) {
  while (true) {
    for (const pb::SampleOrder& order : response.samples()) sampler_.Add(order);
    if (!response.has_work()) break;
    const absl::Duration interval = IntervalOf(response);
    response = DoWork(response.work(), interval);
  }
  sampler_.ServeIdle(
      [this](const pb::SampleOrder& order, const BlobReader& reader) {
        return bases_.Load(
            order.base_model(),
            [this, reader](const std::string& blob,
                           const std::function<absl::Status(std::string_view)>& sink) {
              return client_.ReadBlob(reader, blob, sink, drain_);
            });
      },
      [this] { return draining(); }, drain_);
  PauseIfFailing();
}

void Agent::PauseIfFailing() {
  if (!std::exchange(pause_, false)) return;
  absl::Duration pause = options_.first_pause;
  for (int i = 1; i < platform_failures_ && pause < options_.longest_pause; ++i) pause *= 2;
  pause = std::min(pause, options_.longest_pause);
  spdlog::warn("after {} failures in a row no work is taken for {}", platform_failures_,
               absl::FormatDuration(pause));
  drain_.WaitFor(pause);
}

pb::SynchronizeResponse Agent::DoWork(const pb::Work& work, absl::Duration interval) {
  const std::string& resource = work.lease().resource();
  spdlog::info("{}: taken with epoch {}", resource, work.lease().epoch());
  PassKillPoint("worker.work.taken");
  LeaseSession session(client_, metrics_, Identity(), work.lease(), interval,
                       [this](const pb::SampleOrder& order) { sampler_.Add(order); });
  metrics_.SetBusy(true);
  session.Start();
  {
    absl::MutexLock lock(&mutex_);
    session_ = &session;
  }
  if (draining()) session.Drain();
  auto finished = RunTask(work, session);
  {
    absl::MutexLock lock(&mutex_);
    session_ = nullptr;
  }
  const LeaseSession::Order order = session.order();
  const auto count = [&](const char* outcome) {
    metrics_.CountLease(work.has_fine_tune() ? "fine_tune" : "train_vector", outcome);
  };
  if (order == LeaseSession::Order::kLost ||
      (!finished.ok() && ErrorReason(finished.status()) == "LEASE_LOST")) {
    spdlog::warn("{}: dropped, the lease is lost", resource);
    count("lost");
    metrics_.SetBusy(false);
    return {};
  }
  pb::SynchronizeRequest::Finished report;
  if (finished.ok()) {
    spdlog::info("{}: done", resource);
    count("done");
    report = *std::move(finished);
  } else if (order == LeaseSession::Order::kCancel) {
    spdlog::info("{}: cancelled", resource);
    count("cancelled");
    report.mutable_cancelled();
  } else if (LeaseSession::AsksForCheckpoint(order) &&
             (absl::IsCancelled(finished.status()) || absl::IsAborted(finished.status()))) {
    const bool paused = order == LeaseSession::Order::kPause;
    spdlog::info("{}: {}", resource, paused ? "paused" : "handed back");
    count(paused ? "paused" : "handed_back");
    if (paused) {
      report.mutable_paused()->set_checkpoint_failed(session.checkpoint_failed());
    } else {
      report.mutable_handed_back();
    }
  } else {
    spdlog::error("{}: failed: {}", resource, StatusText(finished.status()));
    count("failed");
    *report.mutable_error() =
        work.has_fine_tune() ? ToJobError(finished.status()) : ToVectorError(finished.status());
  }
  if (report.has_error() && report.error().kind() == ballast::v1::JobError::PLATFORM) {
    ++platform_failures_;
    pause_ = true;
  } else {
    platform_failures_ = 0;
  }
  *report.mutable_lease() = work.lease();
  *report.mutable_final_state() = session.Snapshot();
  // Heartbeats go on until the answer is there: the server may be long about it.
  if (report.has_delta()) PassKillPoint("worker.delta.ready");
  pb::SynchronizeResponse response = Report(report, session);
  if (report.has_delta()) PassKillPoint("worker.delta.reported");
  session.Stop();
  metrics_.SetBusy(false);
  return response;
}

absl::StatusOr<pb::SynchronizeRequest::Finished> Agent::RunTask(const pb::Work& work,
                                                                LeaseSession& session) {
  TaskEnvironment environment{
      client_,
      vault_,
      bases_,
      sampler_,
      session,
      clock_,
      metrics_,
      base_replies_,
      guards_,
      options_.version,
      options_.checkpoint_steps,
      options_.certificate_key.has_value() ? &*options_.certificate_key : nullptr,
      options_.allow_unprotected};
  try {
    switch (work.task_case()) {
      case pb::Work::kFineTune:
        return RunFineTune(environment, work);
      case pb::Work::kTrainVector:
        return RunTrainVector(environment, work);
      case pb::Work::TASK_NOT_SET:
        break;
    }
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     "the worker ran out of memory");
  }
  return MakeError(absl::StatusCode::kUnimplemented, "TASK_UNKNOWN",
                   "the server gave a kind of work that this worker does not know; use the same "
                   "version of both");
}

pb::SynchronizeResponse Agent::Report(const pb::SynchronizeRequest::Finished& finished,
                                      const LeaseSession& session) {
  Backoff backoff(client_.options());
  Cancellation never;
  absl::Duration waited_while_stopping;
  absl::Duration waited_while_refused;
  const std::string resource = finished.lease().resource();
  while (true) {
    pb::SynchronizeRequest request = Identity();
    *request.mutable_finished() = finished;
    if (pause_) request.set_draining(true);  // nothing new with the answer
    auto response = client_.Synchronize(
        std::move(request), draining() ? kReportTimeoutWhenStopping : kReportTimeout, never);
    if (response.ok()) return *std::move(response);
    const absl::Status& status = response.status();
    // A server that answers but cannot store the result may soon: its disk was full, say.
    const bool refused = absl::IsResourceExhausted(status) || absl::IsInternal(status);
    if (refused ? session.order() == LeaseSession::Order::kLost ||
                      waited_while_refused >= options_.report_patience
                : !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status) &&
                      !absl::IsUnauthenticated(status)) {
      spdlog::error("{}: the server does not take the result: {}", resource, StatusText(status));
      return {};
    }
    const absl::Duration wait = backoff.Next();
    if (refused) waited_while_refused += wait;
    spdlog::warn("{}: the result is not reported yet: {}", resource, StatusText(status));
    if (draining()) {
      if (waited_while_stopping >= options_.stop_patience) return {};
      waited_while_stopping += wait;
      never.WaitFor(wait);
    } else {
      drain_.WaitFor(wait);
    }
  }
}

void Agent::SayGoodbye() {
  pb::SynchronizeRequest request = Identity();
  request.mutable_idle();
  Cancellation never;
  // Best effort: the server notices a silent worker anyway.
  client_.Synchronize(std::move(request), kGoodbyeTimeout, never).IgnoreError();
}

}  // namespace ballast::worker::agent
