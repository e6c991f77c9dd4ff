// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/watch_load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/grpc_status.h"

namespace ballast::bench {
namespace {

// The most that the server takes on a connection (server/api/server.cc); more wait unseen.
constexpr int kStreamsOfAConnection = 1000;
constexpr absl::Duration kPatience = absl::Minutes(2);

}  // namespace

// One call. Its reactions run on gRPC's threads, one at a time.
class WatchLoad::Watch : public grpc::ClientReadReactor<v1::WatchFineTuningJobResponse> {
 public:
  Watch(WatchLoad& load, v1::FineTuningService::Stub& stub, const Job& job)
      : load_(load), asked_(absl::Now()) {
    request_.set_name(job.name);
    Authorise(*job.tenant, context_);
    stub.async()->WatchFineTuningJob(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!std::exchange(open_, true)) load_.Opened(absl::Now() - asked_);
    load_.Heard();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override { load_.Ended(open_, status); }

  WatchLoad& load_;
  const absl::Time asked_;
  grpc::ClientContext context_;
  v1::WatchFineTuningJobRequest request_;
  v1::WatchFineTuningJobResponse response_;
  bool open_ = false;
};

WatchLoad::WatchLoad(std::string address, std::vector<Tenant> tenants, int watches)
    : address_(std::move(address)), tenants_(std::move(tenants)), count_(watches) {}

WatchLoad::~WatchLoad() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  for (const auto& watch : watches_) watch->Cancel();
  absl::MutexLock lock(&mutex_);
  const auto all_ended = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return ended_ == static_cast<int>(watches_.size());
  };
  mutex_.Await(absl::Condition(&all_ended));
}

absl::StatusOr<std::vector<WatchLoad::Job>> WatchLoad::RunningJobs() {
  std::vector<Job> running;
  const auto stub = v1::FineTuningService::NewStub(Connect(address_));
  for (const Tenant& tenant : tenants_) {
    v1::ListFineTuningJobsRequest request;
    request.set_parent(absl::StrCat("tenants/", tenant.id));
    request.set_page_size(1000);
    do {
      grpc::ClientContext context;
      Authorise(tenant, context);
      v1::ListFineTuningJobsResponse response;
      BALLAST_RETURN_IF_ERROR(
          FromGrpcStatus(stub->ListFineTuningJobs(&context, request, &response)));
      for (const auto& job : response.fine_tuning_jobs()) {
        if (job.state() == v1::FineTuningJob::RUNNING) {
          running.push_back({&tenant, job.name()});
        }
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
  }
  if (running.empty()) return absl::NotFoundError("no job runs");
  return running;
}

absl::Status WatchLoad::Begin() {
  BALLAST_ASSIGN_OR_RETURN(const std::vector<Job> jobs, RunningJobs());
  for (int i = 0; i < count_; ++i) {
    if (i % kStreamsOfAConnection == 0) {
      stubs_.push_back(v1::FineTuningService::NewStub(Connect(address_)));
    }
    const Job& job = jobs[static_cast<size_t>(i) % jobs.size()];
    watches_.push_back(std::make_unique<Watch>(*this, *stubs_.back(), job));
  }
  absl::MutexLock lock(&mutex_);
  const auto all_open = [this]()
                            ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_ + ended_ >= count_; };
  if (mutex_.AwaitWithTimeout(absl::Condition(&all_open), kPatience)) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat(open_, " of ", count_, " watches were open after two minutes"));
}

void WatchLoad::Opened(absl::Duration took) {
  absl::MutexLock lock(&mutex_);
  tally_.Answered(took);
  most_open_ = std::max(most_open_, ++open_);
}

void WatchLoad::Heard() {
  absl::MutexLock lock(&mutex_);
  ++messages_;
}

void WatchLoad::Ended(bool was_open, const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  ++ended_;
  if (was_open) --open_;
  if (ending_) return;
  if (status.ok()) {
    tally_.Failed("ENDED");
  } else {
    tally_.Failed(status);
  }
}

std::string WatchLoad::Tell() {
  absl::MutexLock lock(&mutex_);
  const Tally told = std::exchange(tally_, {});
  return absl::StrCat("{\"open\": ", open_, ", \"most_open\": ", most_open_,
                      ", \"messages\": ", std::exchange(messages_, 0), ", ", told.Members(), "}");
}

}  // namespace ballast::bench
