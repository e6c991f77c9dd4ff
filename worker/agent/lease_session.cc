// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/lease_session.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/proto_duration.h"
#include "worker/agent/status_text.h"

namespace ballast::worker::agent {
namespace {

constexpr absl::Duration kHeartbeatTimeout = absl::Seconds(20);
constexpr absl::Duration kShortestInterval = absl::Milliseconds(10);
constexpr absl::Duration kLongestInterval = absl::Minutes(1);

LeaseSession::Order OrderOf(const pb::SynchronizeResponse::Stop& stop) {
  if (stop.lease_lost()) return LeaseSession::Order::kLost;
  return stop.pause() ? LeaseSession::Order::kPause : LeaseSession::Order::kCancel;
}

const char* ReasonOf(LeaseSession::Order order) {
  if (order == LeaseSession::Order::kLost) return "the lease is lost";
  return order == LeaseSession::Order::kPause ? "paused" : "cancelled";
}

}  // namespace

LeaseSession::LeaseSession(WorkerClient& client, Metrics& metrics, pb::SynchronizeRequest identity,
                           pb::Lease lease, absl::Duration interval,
                           std::function<void(const pb::SampleOrder&)> samples)
    : client_(client),
      metrics_(metrics),
      identity_(std::move(identity)),
      lease_(std::move(lease)),
      samples_(std::move(samples)),
      interval_(std::clamp(interval, kShortestInterval, kLongestInterval)) {
  absl::MutexLock lock(&mutex_);
  *state_.mutable_lease() = lease_;
}

LeaseSession::~LeaseSession() { Stop(); }

void LeaseSession::Start() {
  thread_ = std::thread([this] { Run(); });
}

void LeaseSession::Stop() {
  stop_.Cancel();
  {
    absl::MutexLock lock(&mutex_);
    wake_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

LeaseSession::Order LeaseSession::order() const {
  absl::MutexLock lock(&mutex_);
  return order_;
}

void LeaseSession::Drain() { Raise(Order::kDrain); }

void LeaseSession::Raise(Order order) {
  {
    absl::MutexLock lock(&mutex_);
    if (order <= order_) return;
    order_ = order;
  }
  interrupt_.Cancel();
  if (order == Order::kCancel || order == Order::kLost) abandon_.Cancel();
}

void LeaseSession::SetProgress(const Progress& progress) {
  absl::MutexLock lock(&mutex_);
  state_.set_step(progress.step);
  state_.set_total_steps(progress.total_steps);
  state_.set_trained_tokens(progress.trained_tokens);
}

void LeaseSession::AddEvaluation(const Evaluation& evaluation) {
  absl::MutexLock lock(&mutex_);
  auto* added = state_.add_evaluations();
  added->set_step(evaluation.step);
  added->set_training_loss(evaluation.training_loss);
  if (evaluation.validation_loss.has_value())
    added->set_validation_loss(*evaluation.validation_loss);
  wake_ = true;
}

void LeaseSession::SetScreening(const ballast::v1::ScreeningReport& report) {
  absl::MutexLock lock(&mutex_);
  *state_.mutable_screening() = report;
  wake_ = true;
}

void LeaseSession::SetCheckpoint(const std::string& digest, int64_t step) {
  absl::MutexLock lock(&mutex_);
  state_.set_checkpoint_digest(digest);
  state_.set_checkpoint_step(step);
  checkpoint_failed_ = false;
  wake_ = true;
}

void LeaseSession::SetCheckpointFailed() {
  absl::MutexLock lock(&mutex_);
  checkpoint_failed_ = true;
}

bool LeaseSession::checkpoint_failed() const {
  absl::MutexLock lock(&mutex_);
  return checkpoint_failed_;
}

pb::SynchronizeRequest::Busy LeaseSession::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

void LeaseSession::Run() {
  while (!stop_.cancelled()) {
    Beat();
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&wake_), interval_);
    wake_ = false;
  }
}

void LeaseSession::Beat() {
  pb::SynchronizeRequest request = identity_;
  {
    absl::MutexLock lock(&mutex_);
    *request.mutable_busy() = state_;
    request.set_draining(order_ == Order::kDrain);
  }
  const auto response = client_.Synchronize(std::move(request), kHeartbeatTimeout, stop_);
  if (!response.ok()) {
    if (stop_.cancelled()) return;
    if (ErrorReason(response.status()) == "LEASE_LOST") {
      spdlog::warn("{}: the lease is lost; dropping the work", lease_.resource());
      Raise(Order::kLost);
      return;
    }
    // The work goes on: its writes are fenced, and the server may come back before the lease ends.
    metrics_.CountHeartbeatFailure();
    if (failures_++ % 30 == 0) {
      spdlog::warn("{}: heartbeat failed: {}", lease_.resource(), StatusText(response.status()));
    }
    return;
  }
  failures_ = 0;
  for (const pb::SampleOrder& order : response->samples()) samples_(order);
  if (response->has_stop()) {
    const Order order = OrderOf(response->stop());
    if (order > this->order()) {
      spdlog::info("{}: told to stop, {}", lease_.resource(), ReasonOf(order));
    }
    Raise(order);
  }
  if (response->has_heartbeat_interval()) {
    const absl::Duration interval = ToDuration(response->heartbeat_interval());
    absl::MutexLock lock(&mutex_);
    interval_ = std::clamp(interval, kShortestInterval, kLongestInterval);
  }
}

}  // namespace ballast::worker::agent
