// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_WORKER_SERVICE_H_
#define BALLAST_SERVER_API_WORKER_SERVICE_H_

#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "server/api/blob_stream.h"
#include "server/api/call.h"
#include "server/api/held_calls.h"
#include "server/api/sample_broker.h"
#include "server/core/blob_store.h"
#include "server/core/control_plane.h"

namespace ballast::server {

// ballast.worker.v1.WorkerService. Thread safety: thread-safe.
class WorkerService : public worker::v1::WorkerService::CallbackService {
 public:
  // All must outlive the service. No blob that a worker writes is larger than `max_blob_bytes`.
  WorkerService(const ApiContext& api, ControlPlane& plane, HeldCalls& held, SampleBroker& broker,
                BlobStore& blobs, int64_t max_blob_bytes)
      : api_(api),
        plane_(plane),
        held_(held),
        broker_(broker),
        blobs_(blobs),
        max_blob_bytes_(max_blob_bytes) {}

  grpc::ServerUnaryReactor* Synchronize(grpc::CallbackServerContext* context,
                                        const worker::v1::SynchronizeRequest* request,
                                        worker::v1::SynchronizeResponse* response) override;
  grpc::ServerWriteReactor<worker::v1::ReadBlobResponse>* ReadBlob(
      grpc::CallbackServerContext* context, const worker::v1::ReadBlobRequest* request) override;
  grpc::ServerReadReactor<worker::v1::WriteBlobRequest>* WriteBlob(
      grpc::CallbackServerContext* context, worker::v1::WriteBlobResponse* response) override;
  grpc::ServerReadReactor<worker::v1::ReturnSampleRequest>* ReturnSample(
      grpc::CallbackServerContext* context, worker::v1::ReturnSampleResponse* response) override;

 private:
  absl::StatusOr<BlobAnswer<worker::v1::ReadBlobResponse>> OpenBlob(
      absl::Time now, const worker::v1::ReadBlobRequest& request);
  // OK when every file that a Finished names is stored with its size and digest. INVALID_ARGUMENT
  // (RESULT_INVALID).
  absl::Status CheckResult(absl::Time now, const worker::v1::SynchronizeRequest& request);

  const ApiContext& api_;
  ControlPlane& plane_;
  HeldCalls& held_;
  SampleBroker& broker_;
  BlobStore& blobs_;
  const int64_t max_blob_bytes_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_WORKER_SERVICE_H_
