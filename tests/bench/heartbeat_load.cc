// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/heartbeat_load.h"

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/grpc_status.h"

namespace ballast::bench {
namespace {

constexpr size_t kClaimers = 8;
// Long enough for a server that has too much to do: how late it answers is what is measured.
constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr int64_t kTokensPerStep = 1000;
constexpr int64_t kTotalSteps = 1'000'000;

absl::Duration IntervalOf(const worker::v1::SynchronizeResponse& response) {
  return absl::Seconds(response.heartbeat_interval().seconds()) +
         absl::Nanoseconds(response.heartbeat_interval().nanos());
}

}  // namespace

HeartbeatLoad::HeartbeatLoad(std::string address, Tenant key, int workers)
    : address_(std::move(address)),
      key_(std::move(key)),
      begin_(absl::Now()),
      workers_(static_cast<size_t>(workers)) {}

HeartbeatLoad::~HeartbeatLoad() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
  absl::MutexLock lock(&mutex_);
  while (running_ > 0) changed_.Wait(&mutex_);
}

absl::Status HeartbeatLoad::Begin() {
  thread_ = std::thread([this] { Loop(); });
  std::atomic<size_t> next = 0;
  std::vector<absl::Status> outcomes(kClaimers);
  std::vector<std::thread> claimers;
  for (absl::Status& outcome : outcomes) {
    claimers.emplace_back([this, &next, &outcome] {
      for (size_t own = next++; own < workers_.size() && outcome.ok(); own = next++) {
        outcome = Claim(own);
      }
    });
  }
  for (std::thread& claimer : claimers) claimer.join();
  for (const absl::Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return absl::OkStatus();
}

absl::Status HeartbeatLoad::Claim(size_t number) {
  Worker& worker = workers_[number];
  worker.stub = worker::v1::WorkerService::NewStub(Connect(address_));
  worker.request.set_worker_id(absl::StrCat("bench-", number));
  worker.request.set_device("none");
  worker.request.set_version("none");
  worker.request.mutable_idle();
  grpc::ClientContext context;
  Authorise(key_, context);
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  const grpc::Status status = worker.stub->Synchronize(&context, worker.request, &worker.response);
  if (!status.ok()) return FromGrpcStatus(status);
  if (!worker.response.has_work()) {
    return absl::NotFoundError(absl::StrCat("there was no job for worker ", number));
  }
  auto& busy = *worker.request.mutable_busy();
  *busy.mutable_lease() = worker.response.work().lease();
  busy.set_total_steps(kTotalSteps);
  // Its own moment of every interval.
  worker.interval = IntervalOf(worker.response);
  worker.due = begin_ + worker.interval * (static_cast<double>(number) / workers_.size());
  while (worker.due < absl::Now()) worker.due += worker.interval;
  absl::MutexLock lock(&mutex_);
  ++working_;
  waiting_.emplace(worker.due, &worker);
  changed_.Signal();
  return absl::OkStatus();
}

void HeartbeatLoad::Loop() {
  absl::MutexLock lock(&mutex_);
  while (!ending_) {
    const absl::Time next = waiting_.empty() ? absl::InfiniteFuture() : waiting_.top().first;
    if (absl::Now() < next) {
      changed_.WaitWithDeadline(&mutex_, next);
      continue;
    }
    Worker& worker = *waiting_.top().second;
    waiting_.pop();
    ++running_;
    mutex_.Unlock();
    Beat(worker);
    mutex_.Lock();
  }
}

void HeartbeatLoad::Beat(Worker& worker) {
  auto& busy = *worker.request.mutable_busy();
  busy.set_step(busy.step() + 1);
  busy.set_trained_tokens(busy.trained_tokens() + kTokensPerStep);
  worker.asked = absl::Now();
  worker.context = std::make_unique<grpc::ClientContext>();
  Authorise(key_, *worker.context);
  worker.context->set_deadline(absl::ToChronoTime(worker.asked + kPatience));
  worker.stub->async()->Synchronize(
      worker.context.get(), &worker.request, &worker.response,
      [this, &worker](const grpc::Status& status) { Heard(worker, status); });
}

void HeartbeatLoad::Heard(Worker& worker, const grpc::Status& status) {
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mutex_);
  --running_;
  changed_.Signal();
  if (status.ok() && worker.response.has_stop()) {
    tally_.Failed(worker.response.stop().lease_lost() ? "LEASE_LOST" : "STOPPED");
    --working_;
    return;
  }
  if (status.ok()) {
    tally_.Answered(now - worker.asked);
    worker.interval = IntervalOf(worker.response);
  } else {
    tally_.Failed(status);
  }
  worker.due = std::max(worker.due + worker.interval, now);
  waiting_.emplace(worker.due, &worker);
}

std::string HeartbeatLoad::Tell() {
  absl::MutexLock lock(&mutex_);
  const Tally told = std::exchange(tally_, {});
  return absl::StrCat("{\"workers\": ", working_, ", ", told.Members(), "}");
}

}  // namespace ballast::bench
