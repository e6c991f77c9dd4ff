// SPDX-License-Identifier: Apache-2.0
#include "server/api/held_calls.h"

#include <iterator>
#include <set>
#include <utility>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {
namespace {

using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

// Sampling orders for one answer: a busy worker does one between two steps.
constexpr size_t kSamplesWhenIdle = 4;
constexpr size_t kSamplesWhenBusy = 1;

bool IsNothing(const SynchronizeResponse& response) {
  return response.has_idle() && response.samples().empty();
}

SynchronizeResponse CallAgain() {
  SynchronizeResponse response;
  response.mutable_idle();
  response.mutable_heartbeat_interval()->set_seconds(1);
  return response;
}

}  // namespace

absl::StatusOr<SynchronizeResponse> HeldCalls::Answer(absl::Time now,
                                                      const SynchronizeRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(SynchronizeResponse response, plane_.Synchronize(now, request));
  AddSamples(now, request, response);
  return response;
}

void HeldCalls::AddSamples(absl::Time now, const SynchronizeRequest& request,
                           SynchronizeResponse& response) {
  if (request.draining() || response.has_stop()) return;
  const bool offers = relay_ != nullptr && relay_->MayHaveOffers();
  if (!broker_.HasWaiting() && !offers) return;
  const auto base = BaseInUse(now, request, response);
  // The lease matters more than samples: those wait for another worker or the next heartbeat.
  if (!base.ok()) return;
  const size_t most = response.has_idle() ? kSamplesWhenIdle : kSamplesWhenBusy;
  auto orders = broker_.Take(now, request.worker_id(), most, *base);
  if (orders.empty() && offers) orders = TakeOffers(now, request.worker_id(), most, *base);
  for (auto& order : orders) *response.add_samples() = std::move(order);
}

std::vector<worker::v1::SampleOrder> HeldCalls::TakeOffers(absl::Time now,
                                                           const std::string& worker_id,
                                                           size_t most,
                                                           const std::string& base_digest) {
  auto orders = relay_->TakeOffers(now, worker_id, most, base_digest);
  if (orders.ok()) return *std::move(orders);
  spdlog::warn("sampling orders of other servers cannot be taken, it is tried again: {}",
               ForLog(orders.status()));
  return {};
}

absl::StatusOr<std::string> HeldCalls::BaseInUse(absl::Time now, const SynchronizeRequest& request,
                                                 const SynchronizeResponse& response) {
  if (response.has_work()) return response.work().base_model().digest();
  if (!request.has_busy()) return "";
  return plane_.BaseDigestOf(now, request.worker_id(), request.busy().lease());
}

void HeldCalls::Hold(WorkerCall* call, absl::Time deadline) {
  WorkerCall* older = nullptr;
  bool draining;
  {
    absl::MutexLock lock(&mutex_);
    draining = draining_;
    const std::string& worker_id = call->request().worker_id();
    for (auto it = held_.begin(); it != held_.end(); ++it) {
      if (it->worker_id == worker_id) {
        older = it->call;
        held_.erase(it);
        break;
      }
    }
    // A cancel that came before this found nothing to drop.
    if (!draining && !call->cancelled()) {
      held_.push_back({call, worker_id, deadline});
      call = nullptr;
    }
  }
  if (older != nullptr) {
    // Workers that wait for each other's answers in turn are noticed, and not in every second.
    if (!older->cancelled() && replaced_.fetch_add(1) % 60 == 0) {
      spdlog::warn(
          "worker {} calls again while its call is held: if two workers have this id, "
          "they take each other's leases away; give each its own worker_id",
          older->request().worker_id());
    }
    older->Answer(CallAgain());
  }
  if (call != nullptr) call->Answer(CallAgain());
}

void HeldCalls::Drop(WorkerCall* call) {
  {
    absl::MutexLock lock(&mutex_);
    auto it = held_.begin();
    while (it != held_.end() && it->call != call) ++it;
    // Somebody else has taken it and answers it.
    if (it == held_.end()) return;
    held_.erase(it);
  }
  call->Answer(absl::CancelledError("the client went away"));
}

void HeldCalls::Dispatch(absl::Time now) {
  dispatches_.fetch_add(1);
  absl::MutexLock dispatch_lock(&dispatch_mutex_);
  while (true) {
    const std::vector<Held> oldest = TakeOldest();
    if (oldest.empty()) return;
    std::vector<const SynchronizeRequest*> requests;
    for (const Held& held : oldest) requests.push_back(&held.call->request());
    auto answers = plane_.SynchronizeHeld(now, requests);
    std::vector<Held> without;
    for (size_t i = 0; i < oldest.size(); ++i) {
      if (answers[i].ok()) AddSamples(now, *requests[i], *answers[i]);
      if (answers[i].ok() && IsNothing(*answers[i])) {
        without.push_back(oldest[i]);
      } else {
        oldest[i].call->Answer(std::move(answers[i]));
      }
    }
    if (without.empty()) continue;
    // Workers are alike: what is nothing for these is nothing for the others.
    HoldAgain(std::move(without));
    return;
  }
}

std::vector<HeldCalls::Held> HeldCalls::TakeOldest() {
  std::vector<Held> oldest, left;
  {
    absl::MutexLock lock(&mutex_);
    while (!held_.empty() && oldest.size() < ControlPlane::kMostAtOnce) {
      (held_.front().call->cancelled() ? left : oldest).push_back(std::move(held_.front()));
      held_.pop_front();
    }
  }
  for (const Held& held : left) {
    held.call->Answer(absl::CancelledError("the client went away"));
  }
  return oldest;
}

void HeldCalls::HoldAgain(std::vector<Held> calls) {
  std::vector<Held> ended;
  {
    absl::MutexLock lock(&mutex_);
    std::set<std::string> called_again;
    for (const Held& held : held_) called_again.insert(held.worker_id);
    auto place = held_.begin();
    for (Held& held : calls) {
      // Nobody has told of a client that has gone meanwhile: Drop did not find its call.
      const bool ends =
          draining_ || held.call->cancelled() || called_again.count(held.worker_id) != 0;
      if (ends) {
        ended.push_back(std::move(held));
      } else {
        place = std::next(held_.insert(place, std::move(held)));
      }
    }
  }
  for (const Held& held : ended) {
    if (held.call->cancelled()) {
      held.call->Answer(absl::CancelledError("the client went away"));
    } else {
      held.call->Answer(CallAgain());
    }
  }
}

void HeldCalls::Sweep(absl::Time now) {
  std::list<Held> due;
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = held_.begin(); it != held_.end();) {
      const auto here = it++;
      if (here->deadline <= now || here->call->cancelled()) due.splice(due.end(), held_, here);
    }
  }
  for (const Held& held : due) held.call->Answer(CallAgain());
}

void HeldCalls::Drain() {
  std::list<Held> all;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    all.swap(held_);
  }
  for (const Held& held : all) held.call->Answer(CallAgain());
}

int64_t HeldCalls::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(held_.size());
}

void SynchronizeCall::Begin() {
  const absl::Time now = call_.Now();
  const int64_t dispatches = held_.dispatches();
  auto answer = held_.Answer(now, request_);
  const bool wait =
      answer.ok() && IsNothing(*answer) && request_.has_idle() && !request_.draining();
  if (!wait) {
    Answer(std::move(answer));
    return;
  }
  // Once held, another thread may answer and delete this object.
  HeldCalls& held = held_;
  held.Hold(this, now + HeldCalls::kHold);
  if (held.dispatches() != dispatches) held.Dispatch(now);
}

void SynchronizeCall::Answer(absl::StatusOr<SynchronizeResponse> response) {
  const absl::Status status = response.status();
  if (status.ok()) *response_ = *std::move(response);
  Finish(call_.End(status));
}

void SynchronizeCall::OnCancel() {
  // Off gRPC's thread, and never after OnDone: that waits for this call's Finish, which waits for
  // Drop.
  held_.Drop(this);
}

}  // namespace ballast::server
