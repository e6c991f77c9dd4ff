// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_TESTS_BENCH_HEARTBEAT_LOAD_H_
#define BALLAST_TESTS_BENCH_HEARTBEAT_LOAD_H_

#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "tests/bench/load.h"

namespace ballast::bench {

// Workers that seem to train: each has a connection of its own, takes a job, and tells every
// heartbeat interval how far it has got, one step further each time. Their heartbeats are spread
// evenly over the interval. Those that are late go on at once; one that is told to stop sends no
// more. Jobs are left as they are in the end, as by workers that die.
class HeartbeatLoad : public StandingLoad {
 public:
  // `key`: with a worker's key.
  HeartbeatLoad(std::string address, Tenant key, int workers);
  ~HeartbeatLoad() override;

  // Gives each worker a job. NOT_FOUND where there are too few.
  absl::Status Begin() override;
  std::string Tell() override;

 private:
  struct Worker {
    std::unique_ptr<worker::v1::WorkerService::Stub> stub;
    worker::v1::SynchronizeRequest request;
    worker::v1::SynchronizeResponse response;
    std::unique_ptr<grpc::ClientContext> context;
    absl::Duration interval;  // as the server last named it
    absl::Time due, asked;
  };
  using Due = std::pair<absl::Time, Worker*>;

  // Gives one worker a job and a place among the others' heartbeats.
  absl::Status Claim(size_t number);
  void Loop();
  void Beat(Worker& worker);
  void Heard(Worker& worker, const grpc::Status& status);

  const std::string address_;
  const Tenant key_;
  const absl::Time begin_;
  std::vector<Worker> workers_;
  std::thread thread_;

  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> waiting_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  int working_ ABSL_GUARDED_BY(mutex_) = 0;  // workers that have a job
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  Tally tally_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::bench

#endif  // BALLAST_TESTS_BENCH_HEARTBEAT_LOAD_H_
