// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TESTING_FAKE_WORKER_SERVICE_H_
#define BALLAST_WORKER_TESTING_FAKE_WORKER_SERVICE_H_

#include <grpcpp/server.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"

namespace ballast::worker::testing {

// A server for one worker, on loopback, that does what a test says. It holds blobs, gives out work
// and sampling orders, and keeps what the worker sends. Thread safety: thread-safe.
class FakeWorkerService final : public ballast::worker::v1::WorkerService::Service {
 public:
  static constexpr char kApiKey[] = "the-workers-api-key";

  FakeWorkerService();
  ~FakeWorkerService() override;

  // "127.0.0.1:PORT".
  const std::string& address() const { return address_; }

  void SetBlob(const std::string& name, std::string bytes);
  // Reads of `name` that take links are answered with these from now on.
  void SetLinks(const std::string& name, const ballast::worker::v1::BlobLinks& links);
  // Reads so far that took links, and those that did not.
  int reads_with_links();
  int reads_without_links();
  void GiveWork(const ballast::worker::v1::Work& work);
  void GiveSample(const ballast::worker::v1::SampleOrder& order);
  // Idle calls are not held from now on.
  void AnswerIdleAtOnce();
  // The next heartbeat is answered with stop.
  void OrderStop(bool lease_lost);
  void OrderPause();
  // Every call about a lease fails with LEASE_LOST from now on.
  void LoseLease();
  // The next `count` calls of any kind fail with UNAVAILABLE.
  void FailCalls(int count);
  // Every ReadBlob of `name` fails with `status` from now on; OK ends that.
  void FailReadsOf(const std::string& name, grpc::Status status);
  // Every WriteBlob fails with `status` from now on.
  void FailWrites(grpc::Status status);
  // Waits until `count` reads have failed by it.
  void WaitForFailedReads(int count);
  // The next `count` reports of the end of a lease fail with `code`.
  void FailReports(int count, grpc::StatusCode code);
  // Each ReadBlob breaks off with UNAVAILABLE after so many bytes.
  void BreakReadsAfter(size_t bytes);

  // Wait for the next report of the end of a lease.
  ballast::worker::v1::SynchronizeRequest::Finished WaitForFinished();
  // Waits for the end of the reply to a sampling order.
  struct Reply {
    std::vector<std::string> pieces;
    std::string finish_reason;
    ballast::v1::JobError error;
    std::string text() const;
  };
  Reply WaitForReply(const std::string& sample_id);
  // Waits until an idle worker asked `count` more times.
  void WaitForIdle(int count);

  // Waits until WriteBlob has stored `name` (see written).
  void WaitForWritten(const std::string& name);

  // What WriteBlob stored: "delta/PATH", "checkpoint", "vector".
  std::map<std::string, std::string> written();
  // The busy states of all heartbeats.
  std::vector<ballast::worker::v1::SynchronizeRequest::Busy> heartbeats();
  // Waits until `count` more heartbeats have come.
  void WaitForHeartbeats(int count);
  // Waits until `count` more reports have failed.
  void WaitForFailedReports(int count);
  ballast::worker::v1::SynchronizeRequest last_request();
  int failed_calls();
  // Whether the last report of an end asked for nothing new.
  bool last_finished_draining();

  grpc::Status Synchronize(grpc::ServerContext* context,
                           const ballast::worker::v1::SynchronizeRequest* request,
                           ballast::worker::v1::SynchronizeResponse* response) override;
  grpc::Status ReadBlob(grpc::ServerContext* context,
                        const ballast::worker::v1::ReadBlobRequest* request,
                        grpc::ServerWriter<ballast::worker::v1::ReadBlobResponse>* writer) override;
  grpc::Status WriteBlob(grpc::ServerContext* context,
                         grpc::ServerReader<ballast::worker::v1::WriteBlobRequest>* reader,
                         ballast::worker::v1::WriteBlobResponse* response) override;
  grpc::Status ReturnSample(grpc::ServerContext* context,
                            grpc::ServerReader<ballast::worker::v1::ReturnSampleRequest>* reader,
                            ballast::worker::v1::ReturnSampleResponse* response) override;

 private:
  // What every call begins with: the key, and the failures that the test asked for.
  grpc::Status Enter(const grpc::ServerContext& context, bool about_lease);

  absl::Mutex mutex_;
  std::map<std::string, std::string> blobs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, ballast::worker::v1::BlobLinks> links_ ABSL_GUARDED_BY(mutex_);
  int reads_with_links_ ABSL_GUARDED_BY(mutex_) = 0;
  int reads_without_links_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<ballast::worker::v1::Work> work_ ABSL_GUARDED_BY(mutex_);
  std::deque<ballast::worker::v1::SampleOrder> samples_ ABSL_GUARDED_BY(mutex_);
  std::optional<ballast::worker::v1::SynchronizeResponse::Stop> stop_ ABSL_GUARDED_BY(mutex_);
  bool lease_lost_ ABSL_GUARDED_BY(mutex_) = false;
  bool idle_at_once_ ABSL_GUARDED_BY(mutex_) = false;
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  int calls_to_fail_ ABSL_GUARDED_BY(mutex_) = 0;
  int failed_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::Status failing_writes_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, grpc::Status> failing_reads_ ABSL_GUARDED_BY(mutex_);
  int reports_to_fail_ ABSL_GUARDED_BY(mutex_) = 0;
  int failed_reads_ ABSL_GUARDED_BY(mutex_) = 0;
  int failed_reports_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::StatusCode report_failure_ ABSL_GUARDED_BY(mutex_) = grpc::StatusCode::OK;
  size_t break_reads_after_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t idle_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<ballast::worker::v1::SynchronizeRequest::Finished> finished_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Reply> replies_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> written_ ABSL_GUARDED_BY(mutex_);
  std::vector<ballast::worker::v1::SynchronizeRequest::Busy> heartbeats_ ABSL_GUARDED_BY(mutex_);
  ballast::worker::v1::SynchronizeRequest last_request_ ABSL_GUARDED_BY(mutex_);
  bool last_finished_draining_ ABSL_GUARDED_BY(mutex_) = false;

  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ballast::worker::testing

#endif  // BALLAST_WORKER_TESTING_FAKE_WORKER_SERVICE_H_
