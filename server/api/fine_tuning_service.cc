// SPDX-License-Identifier: Apache-2.0
#include "server/api/fine_tuning_service.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/job_view.h"
#include "server/api/job_watch.h"
#include "server/api/own_tenant.h"
#include "server/core/resource_name.h"

namespace ballast::server {

grpc::ServerUnaryReactor* FineTuningService::CreateFineTuningJob(
    grpc::CallbackServerContext* context, const v1::CreateFineTuningJobRequest* request,
    v1::FineTuningJob* response) {
  return Unary(
      api_, "FineTuningService/CreateFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::FineTuningJob> {
        BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request->parent()));
        BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job, jobs_.Create(now, who.tenant, *request));
        AddLive(plane_, now, job);
        return job;
      });
}

grpc::ServerUnaryReactor* FineTuningService::GetFineTuningJob(
    grpc::CallbackServerContext* context, const v1::GetFineTuningJobRequest* request,
    v1::FineTuningJob* response) {
  return Unary(
      api_, "FineTuningService/GetFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::FineTuningJob> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job, jobs_.Get(now, who.tenant, name));
        AddLive(plane_, now, job);
        return job;
      });
}

grpc::ServerUnaryReactor* FineTuningService::ListFineTuningJobs(
    grpc::CallbackServerContext* context, const v1::ListFineTuningJobsRequest* request,
    v1::ListFineTuningJobsResponse* response) {
  return Unary(api_, "FineTuningService/ListFineTuningJobs", context, Allowed::kTenant, response,
               [this, request](const Principal& who,
                               absl::Time now) -> absl::StatusOr<v1::ListFineTuningJobsResponse> {
                 BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request->parent()));
                 BALLAST_ASSIGN_OR_RETURN(auto list, jobs_.List(now, who.tenant, *request));
                 for (auto& job : *list.mutable_fine_tuning_jobs()) AddLive(plane_, now, job);
                 return list;
               });
}

grpc::ServerUnaryReactor* FineTuningService::CancelFineTuningJob(
    grpc::CallbackServerContext* context, const v1::CancelFineTuningJobRequest* request,
    v1::FineTuningJob* response) {
  return Unary(
      api_, "FineTuningService/CancelFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::FineTuningJob> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        return jobs_.Cancel(now, who.tenant, name);
      });
}

grpc::ServerUnaryReactor* FineTuningService::PauseFineTuningJob(
    grpc::CallbackServerContext* context, const v1::PauseFineTuningJobRequest* request,
    v1::FineTuningJob* response) {
  return Unary(
      api_, "FineTuningService/PauseFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::FineTuningJob> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        return jobs_.Pause(now, who.tenant, name);
      });
}

grpc::ServerUnaryReactor* FineTuningService::ResumeFineTuningJob(
    grpc::CallbackServerContext* context, const v1::ResumeFineTuningJobRequest* request,
    v1::FineTuningJob* response) {
  return Unary(
      api_, "FineTuningService/ResumeFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<v1::FineTuningJob> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job, jobs_.Resume(now, who.tenant, name));
        AddLive(plane_, now, job);
        return job;
      });
}

grpc::ServerUnaryReactor* FineTuningService::DeleteFineTuningJob(
    grpc::CallbackServerContext* context, const v1::DeleteFineTuningJobRequest* request,
    google::protobuf::Empty* response) {
  return Unary(
      api_, "FineTuningService/DeleteFineTuningJob", context, Allowed::kTenant, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<google::protobuf::Empty> {
        BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request->name(), "name"));
        BALLAST_RETURN_IF_ERROR(jobs_.Delete(who.tenant, name, request->etag()));
        return google::protobuf::Empty();
      });
}

grpc::ServerUnaryReactor* FineTuningService::ListFineTuningJobEvents(
    grpc::CallbackServerContext* context, const v1::ListFineTuningJobEventsRequest* request,
    v1::ListFineTuningJobEventsResponse* response) {
  return Unary(api_, "FineTuningService/ListFineTuningJobEvents", context, Allowed::kTenant,
               response, [this, request](const Principal& who, absl::Time) {
                 return jobs_.ListEvents(who.tenant, *request);
               });
}

grpc::ServerWriteReactor<v1::WatchFineTuningJobResponse>* FineTuningService::WatchFineTuningJob(
    grpc::CallbackServerContext* context, const v1::WatchFineTuningJobRequest* request) {
  auto who = Authorize(api_, *context, Allowed::kTenant);
  if (!who.ok()) {
    return new Refused<grpc::ServerWriteReactor<v1::WatchFineTuningJobResponse>>(
        Call(api_, "FineTuningService/WatchFineTuningJob").End(who.status()));
  }
  return new JobWatch(api_, context, *std::move(who), *request, jobs_, plane_, hub_);
}

}  // namespace ballast::server
