// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_TESTS_BENCH_WATCH_LOAD_H_
#define BALLAST_TESTS_BENCH_WATCH_LOAD_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "tests/bench/load.h"

namespace ballast::bench {

// Calls of WatchFineTuningJob that stay open, on all jobs that run in turn, over as few connections
// as the server allows.
class WatchLoad : public StandingLoad {
 public:
  WatchLoad(std::string address, std::vector<Tenant> tenants, int watches);
  ~WatchLoad() override;

  // Opens all, and waits until each has got its first message. NOT_FOUND where no job runs;
  // DEADLINE_EXCEEDED; a failure of the list of jobs.
  absl::Status Begin() override;
  std::string Tell() override;

 private:
  class Watch;
  struct Job {
    const Tenant* tenant;
    std::string name;
  };

  absl::StatusOr<std::vector<Job>> RunningJobs();
  // What watches tell of themselves.
  void Opened(absl::Duration took);
  void Heard();
  void Ended(bool was_open, const grpc::Status& status);

  const std::string address_;
  const std::vector<Tenant> tenants_;
  const int count_;
  std::vector<std::unique_ptr<v1::FineTuningService::Stub>> stubs_;
  std::vector<std::unique_ptr<Watch>> watches_;

  absl::Mutex mutex_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_open_ ABSL_GUARDED_BY(mutex_) = 0;  // at the same time
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t messages_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  Tally tally_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::bench

#endif  // BALLAST_TESTS_BENCH_WATCH_LOAD_H_
