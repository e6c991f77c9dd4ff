// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_WATCHING_H_
#define BALLAST_SERVER_TESTING_WATCHING_H_

#include <cstdint>
#include <memory>
#include <string>

#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "common/rpc/grpc_status.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {

// A watch that a test reads message by message.
class Watching {
 public:
  Watching(v1::FineTuningService::Stub& stub, const std::string& name, int64_t after)
      : context_(ContextWith(kTenantKey)) {
    v1::WatchFineTuningJobRequest request;
    request.set_name(name);
    request.set_after_sequence(after);
    stream_ = stub.WatchFineTuningJob(context_.get(), request);
  }
  // The next event; sequence 0 at the end.
  v1::JobEvent NextEvent() {
    v1::WatchFineTuningJobResponse response;
    while (stream_->Read(&response)) {
      if (response.has_event()) return response.event();
    }
    return {};
  }
  v1::JobProgress NextProgress() {
    v1::WatchFineTuningJobResponse response;
    while (stream_->Read(&response)) {
      if (response.has_progress()) return response.progress();
    }
    return {};
  }
  absl::Status Finish() { return FromGrpcStatus(stream_->Finish()); }
  void Cancel() { context_->TryCancel(); }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchFineTuningJobResponse>> stream_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_WATCHING_H_
