// SPDX-License-Identifier: Apache-2.0
#include "worker/testing/fake_worker_service.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/rpc/grpc_status.h"

namespace ballast::worker::testing {
namespace {

namespace pb = ::ballast::worker::v1;

constexpr size_t kChunkBytes = 1000;
constexpr absl::Duration kLongPoll = absl::Milliseconds(500);
constexpr int kHeartbeatNanos = 20'000'000;

}  // namespace

FakeWorkerService::FakeWorkerService() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeWorkerService::~FakeWorkerService() {
  {
    absl::MutexLock lock(&mutex_);
    shutting_down_ = true;
  }
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
}

void FakeWorkerService::SetBlob(const std::string& name, std::string bytes) {
  absl::MutexLock lock(&mutex_);
  blobs_[name] = std::move(bytes);
}

void FakeWorkerService::SetLinks(const std::string& name, const pb::BlobLinks& links) {
  absl::MutexLock lock(&mutex_);
  links_[name] = links;
}

int FakeWorkerService::reads_with_links() {
  absl::MutexLock lock(&mutex_);
  return reads_with_links_;
}

int FakeWorkerService::reads_without_links() {
  absl::MutexLock lock(&mutex_);
  return reads_without_links_;
}

void FakeWorkerService::GiveWork(const pb::Work& work) {
  absl::MutexLock lock(&mutex_);
  work_.push_back(work);
}

void FakeWorkerService::GiveSample(const pb::SampleOrder& order) {
  absl::MutexLock lock(&mutex_);
  samples_.push_back(order);
}

void FakeWorkerService::AnswerIdleAtOnce() {
  absl::MutexLock lock(&mutex_);
  idle_at_once_ = true;
}

void FakeWorkerService::OrderStop(bool lease_lost) {
  absl::MutexLock lock(&mutex_);
  stop_.emplace().set_lease_lost(lease_lost);
}

void FakeWorkerService::OrderPause() {
  absl::MutexLock lock(&mutex_);
  stop_.emplace().set_pause(true);
}

void FakeWorkerService::LoseLease() {
  absl::MutexLock lock(&mutex_);
  lease_lost_ = true;
}

void FakeWorkerService::FailCalls(int count) {
  absl::MutexLock lock(&mutex_);
  calls_to_fail_ = count;
}

void FakeWorkerService::FailReadsOf(const std::string& name, grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  failing_reads_[name] = std::move(status);
}

void FakeWorkerService::FailWrites(grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  failing_writes_ = std::move(status);
}

void FakeWorkerService::WaitForFailedReads(int count) {
  absl::MutexLock lock(&mutex_);
  const auto reached = [&]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return failed_reads_ >= count; };
  mutex_.Await(absl::Condition(&reached));
}

void FakeWorkerService::FailReports(int count, grpc::StatusCode code) {
  absl::MutexLock lock(&mutex_);
  reports_to_fail_ = count;
  report_failure_ = code;
}

void FakeWorkerService::BreakReadsAfter(size_t bytes) {
  absl::MutexLock lock(&mutex_);
  break_reads_after_ = bytes;
}

pb::SynchronizeRequest::Finished FakeWorkerService::WaitForFinished() {
  absl::MutexLock lock(&mutex_);
  const auto some = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !finished_.empty(); };
  mutex_.Await(absl::Condition(&some));
  pb::SynchronizeRequest::Finished finished = std::move(finished_.front());
  finished_.pop_front();
  return finished;
}

std::string FakeWorkerService::Reply::text() const { return absl::StrJoin(pieces, ""); }

FakeWorkerService::Reply FakeWorkerService::WaitForReply(const std::string& sample_id) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return replies_.count(sample_id) != 0;
  };
  mutex_.Await(absl::Condition(&there));
  return replies_[sample_id];
}

void FakeWorkerService::WaitForIdle(int count) {
  absl::MutexLock lock(&mutex_);
  const int64_t until = idle_calls_ + count;
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return idle_calls_ >= until; };
  mutex_.Await(absl::Condition(&reached));
}

void FakeWorkerService::WaitForWritten(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return written_.count(name) != 0;
  };
  mutex_.Await(absl::Condition(&there));
}

void FakeWorkerService::WaitForHeartbeats(int count) {
  absl::MutexLock lock(&mutex_);
  const size_t until = heartbeats_.size() + static_cast<size_t>(count);
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return heartbeats_.size() >= until;
  };
  mutex_.Await(absl::Condition(&reached));
}

void FakeWorkerService::WaitForFailedReports(int count) {
  absl::MutexLock lock(&mutex_);
  const int until = failed_reports_ + count;
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return failed_reports_ >= until;
  };
  mutex_.Await(absl::Condition(&reached));
}

std::map<std::string, std::string> FakeWorkerService::written() {
  absl::MutexLock lock(&mutex_);
  return written_;
}

std::vector<pb::SynchronizeRequest::Busy> FakeWorkerService::heartbeats() {
  absl::MutexLock lock(&mutex_);
  return heartbeats_;
}

pb::SynchronizeRequest FakeWorkerService::last_request() {
  absl::MutexLock lock(&mutex_);
  return last_request_;
}

int FakeWorkerService::failed_calls() {
  absl::MutexLock lock(&mutex_);
  return failed_calls_;
}

bool FakeWorkerService::last_finished_draining() {
  absl::MutexLock lock(&mutex_);
  return last_finished_draining_;
}

grpc::Status FakeWorkerService::Enter(const grpc::ServerContext& context, bool about_lease) {
  const auto key = context.client_metadata().find("authorization");
  if (key == context.client_metadata().end() ||
      std::string(key->second.data(), key->second.size()) != absl::StrCat("Bearer ", kApiKey)) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kUnauthenticated, "API_KEY_INVALID", "no key"));
  }
  absl::MutexLock lock(&mutex_);
  if (calls_to_fail_ > 0) {
    --calls_to_fail_;
    ++failed_calls_;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "told to fail");
  }
  if (about_lease && lease_lost_) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kFailedPrecondition, "LEASE_LOST",
                                  "the lease is somebody else's"));
  }
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::Synchronize(grpc::ServerContext* context,
                                            const pb::SynchronizeRequest* request,
                                            pb::SynchronizeResponse* response) {
  const grpc::Status entered = Enter(*context, !request->has_idle());
  if (!entered.ok()) return entered;
  response->mutable_heartbeat_interval()->set_nanos(kHeartbeatNanos);
  absl::MutexLock lock(&mutex_);
  last_request_ = *request;
  const auto give_samples = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const pb::SampleOrder& order : samples_) *response->add_samples() = order;
    samples_.clear();
  };
  if (request->has_busy()) {
    heartbeats_.push_back(request->busy());
    if (stop_.has_value()) {
      *response->mutable_stop() = *stop_;
      stop_.reset();
    } else {
      response->mutable_proceed();
    }
    give_samples();
    return grpc::Status::OK;
  }
  if (request->has_finished()) {
    if (reports_to_fail_ > 0) {
      --reports_to_fail_;
      ++failed_reports_;
      return {report_failure_, "told to fail"};
    }
    finished_.push_back(request->finished());
    last_finished_draining_ = request->draining();
    response->mutable_idle();
    return grpc::Status::OK;
  }
  ++idle_calls_;
  if (request->draining()) {
    response->mutable_idle();
    return grpc::Status::OK;
  }
  const auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return shutting_down_ || idle_at_once_ || !work_.empty() || !samples_.empty();
  };
  mutex_.AwaitWithTimeout(absl::Condition(&ready), kLongPoll);
  give_samples();
  if (work_.empty()) {
    response->mutable_idle();
  } else {
    *response->mutable_work() = work_.front();
    work_.pop_front();
  }
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::ReadBlob(grpc::ServerContext* context,
                                         const pb::ReadBlobRequest* request,
                                         grpc::ServerWriter<pb::ReadBlobResponse>* writer) {
  const grpc::Status entered = Enter(*context, request->has_lease());
  if (!entered.ok()) return entered;
  std::string bytes;
  size_t break_after = 0;
  {
    absl::MutexLock lock(&mutex_);
    const auto failing = failing_reads_.find(request->blob());
    if (failing != failing_reads_.end() && !failing->second.ok()) {
      ++failed_reads_;
      return failing->second;
    }
    const auto blob = blobs_.find(request->blob());
    if (blob == blobs_.end()) {
      return ToGrpcStatus(MakeError(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE",
                                    "the lease does not need this blob"));
    }
    ++(request->accepts_links() ? reads_with_links_ : reads_without_links_);
    const auto links = links_.find(request->blob());
    if (request->accepts_links() && links != links_.end()) {
      pb::ReadBlobResponse response;
      *response.mutable_links() = links->second;
      writer->Write(response);
      return grpc::Status::OK;
    }
    bytes = blob->second.substr(static_cast<size_t>(request->read_offset()));
    break_after = break_reads_after_;
  }
  const size_t end = break_after == 0 ? bytes.size() : std::min(bytes.size(), break_after);
  for (size_t at = 0; at < end; at += kChunkBytes) {
    pb::ReadBlobResponse piece;
    piece.set_data(bytes.substr(at, std::min(kChunkBytes, end - at)));
    if (!writer->Write(piece)) return grpc::Status::OK;
  }
  if (end < bytes.size()) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken off");
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::WriteBlob(grpc::ServerContext* context,
                                          grpc::ServerReader<pb::WriteBlobRequest>* reader,
                                          pb::WriteBlobResponse* response) {
  const grpc::Status entered = Enter(*context, true);
  if (!entered.ok()) return entered;
  std::string name, bytes, digest;
  bool finished = false;
  pb::WriteBlobRequest request;
  while (reader->Read(&request)) {
    if (request.kind_case() == pb::WriteBlobRequest::kDeltaPath) {
      name = absl::StrCat("delta/", request.delta_path());
    } else if (request.kind_case() == pb::WriteBlobRequest::kCheckpointStep) {
      name = "checkpoint";
    } else if (request.kind_case() == pb::WriteBlobRequest::kSealedVector) {
      name = "vector";
    }
    bytes += request.data();
    finished = request.finish();
    digest = request.digest();
  }
  if (!finished || name.empty() || digest != DigestOf(bytes)) {
    return ToGrpcStatus(
        MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH", "not what it says"));
  }
  response->set_size_bytes(static_cast<int64_t>(bytes.size()));
  absl::MutexLock lock(&mutex_);
  if (!failing_writes_.ok()) return failing_writes_;
  written_[name] = std::move(bytes);
  return grpc::Status::OK;
}

grpc::Status FakeWorkerService::ReturnSample(grpc::ServerContext* context,
                                             grpc::ServerReader<pb::ReturnSampleRequest>* reader,
                                             pb::ReturnSampleResponse* response) {
  const grpc::Status entered = Enter(*context, false);
  if (!entered.ok()) return entered;
  Reply reply;
  std::string id;
  pb::ReturnSampleRequest request;
  while (reader->Read(&request)) {
    if (!request.sample_id().empty()) id = request.sample_id();
    if (request.has_error()) reply.error = request.error();
    if (!request.response().text().empty()) reply.pieces.push_back(request.response().text());
    if (!request.response().finish_reason().empty()) {
      reply.finish_reason = request.response().finish_reason();
    }
  }
  absl::MutexLock lock(&mutex_);
  replies_[id] = std::move(reply);
  return grpc::Status::OK;
}

}  // namespace ballast::worker::testing
