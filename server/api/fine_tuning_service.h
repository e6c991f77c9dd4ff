// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_FINE_TUNING_SERVICE_H_
#define BALLAST_SERVER_API_FINE_TUNING_SERVICE_H_

#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/watch_hub.h"
#include "server/core/control_plane.h"
#include "server/core/job_catalog.h"

namespace ballast::server {

// ballast.v1.FineTuningService. Thread safety: thread-safe.
class FineTuningService : public v1::FineTuningService::CallbackService {
 public:
  // All must outlive the service.
  FineTuningService(const ApiContext& api, JobCatalog& jobs, ControlPlane& plane, WatchHub& hub)
      : api_(api), jobs_(jobs), plane_(plane), hub_(hub) {}

  grpc::ServerUnaryReactor* CreateFineTuningJob(grpc::CallbackServerContext* context,
                                                const v1::CreateFineTuningJobRequest* request,
                                                v1::FineTuningJob* response) override;
  grpc::ServerUnaryReactor* GetFineTuningJob(grpc::CallbackServerContext* context,
                                             const v1::GetFineTuningJobRequest* request,
                                             v1::FineTuningJob* response) override;
  grpc::ServerUnaryReactor* ListFineTuningJobs(grpc::CallbackServerContext* context,
                                               const v1::ListFineTuningJobsRequest* request,
                                               v1::ListFineTuningJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelFineTuningJob(grpc::CallbackServerContext* context,
                                                const v1::CancelFineTuningJobRequest* request,
                                                v1::FineTuningJob* response) override;
  grpc::ServerUnaryReactor* PauseFineTuningJob(grpc::CallbackServerContext* context,
                                               const v1::PauseFineTuningJobRequest* request,
                                               v1::FineTuningJob* response) override;
  grpc::ServerUnaryReactor* ResumeFineTuningJob(grpc::CallbackServerContext* context,
                                                const v1::ResumeFineTuningJobRequest* request,
                                                v1::FineTuningJob* response) override;
  grpc::ServerUnaryReactor* DeleteFineTuningJob(grpc::CallbackServerContext* context,
                                                const v1::DeleteFineTuningJobRequest* request,
                                                google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ListFineTuningJobEvents(
      grpc::CallbackServerContext* context, const v1::ListFineTuningJobEventsRequest* request,
      v1::ListFineTuningJobEventsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchFineTuningJobResponse>* WatchFineTuningJob(
      grpc::CallbackServerContext* context, const v1::WatchFineTuningJobRequest* request) override;

 private:
  const ApiContext& api_;
  JobCatalog& jobs_;
  ControlPlane& plane_;
  WatchHub& hub_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_FINE_TUNING_SERVICE_H_
