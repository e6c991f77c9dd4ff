// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

constexpr int kPageSize = 100;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

std::string FullName(std::string_view prefix, std::string_view id) {
  if (id.find('/') != std::string_view::npos) return std::string(id);
  return absl::StrCat(View(prefix), View(id));
}

// One unary call with a response: `method` is called as method(context, response).
template <typename Response, typename Method>
absl::StatusOr<Response> Unary(const Connection& connection, bool may_repeat, Method method) {
  Response response;
  BALLAST_RETURN_IF_ERROR(connection.Call(may_repeat, [&](grpc::ClientContext* context) {
    response.Clear();
    return method(context, &response);
  }));
  return response;
}

}  // namespace

Client::Client(std::shared_ptr<const Connection> connection, std::string_view tenant)
    : connection_(std::move(connection)),
      parent_(absl::StrCat("tenants/", View(tenant))),
      base_models_(v1::BaseModelService::NewStub(connection_->channel())),
      datasets_(v1::DatasetService::NewStub(connection_->channel())),
      jobs_(v1::FineTuningService::NewStub(connection_->channel())),
      deltas_(v1::DeltaService::NewStub(connection_->channel())),
      sampling_(v1::SamplingService::NewStub(connection_->channel())) {}

std::string Client::DatasetName(std::string_view id) const {
  return FullName(absl::StrCat(parent_, "/datasets/"), id);
}

std::string Client::JobName(std::string_view id) const {
  return FullName(absl::StrCat(parent_, "/fineTuningJobs/"), id);
}

std::string Client::BaseModelName(std::string_view id) { return FullName("baseModels/", id); }

std::string Client::DeltaName(std::string_view job) const {
  const std::string name = JobName(job);
  return absl::EndsWith(name, "/delta") ? name : absl::StrCat(name, "/delta");
}

absl::StatusOr<v1::BaseModel> Client::GetBaseModel(std::string_view name) const {
  v1::GetBaseModelRequest request;
  request.set_name(BaseModelName(name));
  return Unary<v1::BaseModel>(*connection_, true, [&](auto* context, auto* response) {
    return base_models_->GetBaseModel(context, request, response);
  });
}

PagedRange<v1::BaseModel> Client::ListBaseModels() const {
  using Range = PagedRange<v1::BaseModel>;
  return Range([connection = connection_,
                stub = base_models_](const std::string& token) -> absl::StatusOr<Range::Page> {
    v1::ListBaseModelsRequest request;
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    BALLAST_ASSIGN_OR_RETURN(
        auto response,
        Unary<v1::ListBaseModelsResponse>(*connection, true, [&](auto* context, auto* response) {
          return stub->ListBaseModels(context, request, response);
        }));
    return Range::Page{{response.base_models().begin(), response.base_models().end()},
                       response.next_page_token()};
  });
}

absl::StatusOr<v1::Dataset> Client::CreateDataset(const v1::Dataset& dataset,
                                                  std::string request_id) const {
  v1::CreateDatasetRequest request;
  request.set_parent(parent_);
  *request.mutable_dataset() = dataset;
  request.set_request_id(request_id.empty() ? NewRequestId() : std::move(request_id));
  return Unary<v1::Dataset>(*connection_, true, [&](auto* context, auto* response) {
    return datasets_->CreateDataset(context, request, response);
  });
}

absl::StatusOr<v1::Dataset> Client::GetDataset(std::string_view name) const {
  v1::GetDatasetRequest request;
  request.set_name(DatasetName(name));
  return Unary<v1::Dataset>(*connection_, true, [&](auto* context, auto* response) {
    return datasets_->GetDataset(context, request, response);
  });
}

PagedRange<v1::Dataset> Client::ListDatasets() const {
  using Range = PagedRange<v1::Dataset>;
  return Range([connection = connection_, stub = datasets_,
                parent = parent_](const std::string& token) -> absl::StatusOr<Range::Page> {
    v1::ListDatasetsRequest request;
    request.set_parent(parent);
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    BALLAST_ASSIGN_OR_RETURN(
        auto response,
        Unary<v1::ListDatasetsResponse>(*connection, true, [&](auto* context, auto* response) {
          return stub->ListDatasets(context, request, response);
        }));
    return Range::Page{{response.datasets().begin(), response.datasets().end()},
                       response.next_page_token()};
  });
}

absl::Status Client::DeleteDataset(std::string_view name) const {
  v1::DeleteDatasetRequest request;
  request.set_name(DatasetName(name));
  // Not repeated: a second attempt would answer DATASET_NOT_FOUND for a delete that worked.
  return Unary<google::protobuf::Empty>(*connection_, false,
                                        [&](auto* context, auto* response) {
                                          return datasets_->DeleteDataset(context, request,
                                                                          response);
                                        })
      .status();
}

absl::StatusOr<v1::UploadStatus> Client::GetUploadStatus(std::string_view name) const {
  v1::GetUploadStatusRequest request;
  request.set_name(DatasetName(name));
  return Unary<v1::UploadStatus>(*connection_, true, [&](auto* context, auto* response) {
    return datasets_->GetUploadStatus(context, request, response);
  });
}

absl::StatusOr<v1::Dataset> Client::WaitForValidation(std::string_view name,
                                                      absl::Duration patience) const {
  absl::Duration waited = absl::ZeroDuration();
  absl::Duration pause = absl::Milliseconds(50);
  while (true) {
    BALLAST_ASSIGN_OR_RETURN(v1::Dataset dataset, GetDataset(name));
    if (dataset.state() == v1::Dataset::READY || dataset.state() == v1::Dataset::INVALID) {
      return dataset;
    }
    if (waited >= patience) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "VALIDATION_PENDING",
                       absl::StrCat(dataset.name(), " is still being checked after ",
                                    absl::FormatDuration(patience), "; look again later"));
    }
    connection_->Sleep(pause);
    waited += pause;
    pause = std::min(pause * 1.5, absl::Seconds(2));
  }
}

absl::StatusOr<v1::FineTuningJob> Client::CreateJob(const v1::FineTuningJob& job,
                                                    std::string request_id) const {
  v1::CreateFineTuningJobRequest request;
  request.set_parent(parent_);
  *request.mutable_fine_tuning_job() = job;
  request.set_request_id(request_id.empty() ? NewRequestId() : std::move(request_id));
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->CreateFineTuningJob(context, request, response);
  });
}

absl::StatusOr<v1::FineTuningJob> Client::EstimateJob(const v1::FineTuningJob& job) const {
  v1::CreateFineTuningJobRequest request;
  request.set_parent(parent_);
  *request.mutable_fine_tuning_job() = job;
  request.set_validate_only(true);
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->CreateFineTuningJob(context, request, response);
  });
}

absl::StatusOr<v1::FineTuningJob> Client::GetJob(std::string_view name) const {
  v1::GetFineTuningJobRequest request;
  request.set_name(JobName(name));
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->GetFineTuningJob(context, request, response);
  });
}

PagedRange<v1::FineTuningJob> Client::ListJobs() const {
  using Range = PagedRange<v1::FineTuningJob>;
  return Range([connection = connection_, stub = jobs_,
                parent = parent_](const std::string& token) -> absl::StatusOr<Range::Page> {
    v1::ListFineTuningJobsRequest request;
    request.set_parent(parent);
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    BALLAST_ASSIGN_OR_RETURN(auto response,
                             Unary<v1::ListFineTuningJobsResponse>(
                                 *connection, true, [&](auto* context, auto* response) {
                                   return stub->ListFineTuningJobs(context, request, response);
                                 }));
    return Range::Page{{response.fine_tuning_jobs().begin(), response.fine_tuning_jobs().end()},
                       response.next_page_token()};
  });
}

absl::StatusOr<v1::FineTuningJob> Client::CancelJob(std::string_view name) const {
  v1::CancelFineTuningJobRequest request;
  request.set_name(JobName(name));
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->CancelFineTuningJob(context, request, response);
  });
}

absl::Status Client::DeleteJob(std::string_view name) const {
  v1::DeleteFineTuningJobRequest request;
  request.set_name(JobName(name));
  // Not repeated, as DeleteDataset.
  return Unary<google::protobuf::Empty>(*connection_, false,
                                        [&](auto* context, auto* response) {
                                          return jobs_->DeleteFineTuningJob(context, request,
                                                                            response);
                                        })
      .status();
}

absl::StatusOr<v1::FineTuningJob> Client::PauseJob(std::string_view name) const {
  v1::PauseFineTuningJobRequest request;
  request.set_name(JobName(name));
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->PauseFineTuningJob(context, request, response);
  });
}

absl::StatusOr<v1::FineTuningJob> Client::ResumeJob(std::string_view name) const {
  v1::ResumeFineTuningJobRequest request;
  request.set_name(JobName(name));
  return Unary<v1::FineTuningJob>(*connection_, true, [&](auto* context, auto* response) {
    return jobs_->ResumeFineTuningJob(context, request, response);
  });
}

absl::StatusOr<v1::DeltaManifest> Client::GetDeltaManifest(std::string_view name) const {
  v1::GetDeltaManifestRequest request;
  request.set_name(DeltaName(name));
  return Unary<v1::DeltaManifest>(*connection_, true, [&](auto* context, auto* response) {
    return deltas_->GetDeltaManifest(context, request, response);
  });
}

absl::StatusOr<std::string> Client::Sample(
    v1::SampleRequest request, const std::function<void(const std::string&)>& on_text) const {
  request.set_parent(parent_);
  for (int attempt = 1;; ++attempt) {
    grpc::ClientContext context;
    connection_->Prepare(context, connection_->options().stream_deadline);
    auto reader = sampling_->Sample(&context, request);
    v1::SampleResponse response;
    std::string finish_reason;
    bool any = false;
    while (reader->Read(&response)) {
      any = true;
      if (!response.text().empty() && on_text) on_text(response.text());
      if (!response.finish_reason().empty()) finish_reason = response.finish_reason();
    }
    const absl::Status status = connection_->Convert(reader->Finish());
    if (status.ok()) return finish_reason;
    // For a worker the server has waited already, and what failed once on one will again.
    const std::string reason = ErrorReason(status);
    if (any || status.code() != absl::StatusCode::kUnavailable || reason == "NO_WORKER" ||
        reason == "SAMPLE_FAILED" || attempt >= connection_->options().retry.max_attempts) {
      return status;
    }
    connection_->Sleep(connection_->options().retry.Backoff(attempt, status));
  }
}

}  // namespace ballast::client
