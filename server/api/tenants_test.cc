// SPDX-License-Identifier: Apache-2.0
// T1 and roles, every RPC: another tenant's thing and a missing one answer alike, and nobody gets
// in with no key, a wrong key or a key of another role.
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;

// A call with a key about a thing.
using AnyCall = std::function<grpc::Status(grpc::ClientContext*, const std::string& name)>;

class TenantsTest : public ServerFixture {
 protected:
  template <typename Stream, typename Response>
  static grpc::Status Drain(Stream stream, Response response) {
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  // RPCs about a data set, by its name.
  std::map<std::string, AnyCall> DatasetCalls() {
    return {
        {"GetDataset",
         [this](auto* context, const auto& name) {
           v1::GetDatasetRequest request;
           request.set_name(name);
           v1::Dataset response;
           return datasets_->GetDataset(context, request, &response);
         }},
        {"DeleteDataset",
         [this](auto* context, const auto& name) {
           v1::DeleteDatasetRequest request;
           request.set_name(name);
           google::protobuf::Empty response;
           return datasets_->DeleteDataset(context, request, &response);
         }},
        {"GetUploadStatus",
         [this](auto* context, const auto& name) {
           v1::GetUploadStatusRequest request;
           request.set_name(name);
           v1::UploadStatus response;
           return datasets_->GetUploadStatus(context, request, &response);
         }},
        {"WriteDataset",
         [this](auto* context, const auto& name) {
           v1::WriteDatasetResponse response;
           const auto stream = datasets_->WriteDataset(context, &response);
           v1::WriteDatasetRequest request;
           request.set_name(name);
           request.set_data("x");
           stream->Write(request);
           stream->WritesDone();
           return stream->Finish();
         }},
        {"CreateFineTuningJob with training data",
         [this](auto* context, const auto& name) {
           v1::CreateFineTuningJobRequest request;
           request.set_parent("tenants/other");
           request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
           request.mutable_fine_tuning_job()->set_training_dataset(name);
           v1::FineTuningJob response;
           return jobs_->CreateFineTuningJob(context, request, &response);
         }},
        {"CreateFineTuningJob with validation data",
         [this](auto* context, const auto& name) {
           v1::CreateFineTuningJobRequest request;
           request.set_parent("tenants/other");
           request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
           request.mutable_fine_tuning_job()->set_training_dataset(others_dataset_);
           request.mutable_fine_tuning_job()->set_validation_dataset(name);
           v1::FineTuningJob response;
           return jobs_->CreateFineTuningJob(context, request, &response);
         }},
    };
  }

  // RPCs about a job, by its name.
  std::map<std::string, AnyCall> JobCalls() {
    return {
        {"GetFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::GetFineTuningJobRequest request;
           request.set_name(name);
           v1::FineTuningJob response;
           return jobs_->GetFineTuningJob(context, request, &response);
         }},
        {"CancelFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::CancelFineTuningJobRequest request;
           request.set_name(name);
           v1::FineTuningJob response;
           return jobs_->CancelFineTuningJob(context, request, &response);
         }},
        {"PauseFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::PauseFineTuningJobRequest request;
           request.set_name(name);
           v1::FineTuningJob response;
           return jobs_->PauseFineTuningJob(context, request, &response);
         }},
        {"ResumeFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::ResumeFineTuningJobRequest request;
           request.set_name(name);
           v1::FineTuningJob response;
           return jobs_->ResumeFineTuningJob(context, request, &response);
         }},
        {"DeleteFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::DeleteFineTuningJobRequest request;
           request.set_name(name);
           google::protobuf::Empty response;
           return jobs_->DeleteFineTuningJob(context, request, &response);
         }},
        {"ListFineTuningJobEvents",
         [this](auto* context, const auto& name) {
           v1::ListFineTuningJobEventsRequest request;
           request.set_parent(name);
           v1::ListFineTuningJobEventsResponse response;
           return jobs_->ListFineTuningJobEvents(context, request, &response);
         }},
        {"WatchFineTuningJob",
         [this](auto* context, const auto& name) {
           v1::WatchFineTuningJobRequest request;
           request.set_name(name);
           return Drain(jobs_->WatchFineTuningJob(context, request),
                        v1::WatchFineTuningJobResponse());
         }},
        {"GetDeltaManifest",
         [this](auto* context, const auto& name) {
           v1::GetDeltaManifestRequest request;
           request.set_name(name + "/delta");
           v1::DeltaManifest response;
           return deltas_->GetDeltaManifest(context, request, &response);
         }},
        {"ReadDelta",
         [this](auto* context, const auto& name) {
           v1::ReadDeltaRequest request;
           request.set_name(name + "/delta");
           request.set_path("manifest.json");
           return Drain(deltas_->ReadDelta(context, request), v1::ReadDeltaResponse());
         }},
        {"Sample",
         [this](auto* context, const auto& name) {
           v1::SampleRequest request;
           request.set_parent("tenants/other");
           request.set_delta(name + "/delta");
           request.add_messages()->set_role("user");
           request.mutable_messages(0)->set_content("hello");
           return Drain(sampling_->Sample(context, request), v1::SampleResponse());
         }},
    };
  }

  // RPCs about a tenant's list or new thing, by the tenant's name.
  std::map<std::string, AnyCall> ParentCalls() {
    return {
        {"CreateDataset",
         [this](auto* context, const auto& parent) {
           v1::CreateDatasetRequest request;
           request.set_parent(parent);
           request.mutable_dataset()->set_base_model("baseModels/tiny");
           v1::Dataset response;
           return datasets_->CreateDataset(context, request, &response);
         }},
        {"ListDatasets",
         [this](auto* context, const auto& parent) {
           v1::ListDatasetsRequest request;
           request.set_parent(parent);
           v1::ListDatasetsResponse response;
           return datasets_->ListDatasets(context, request, &response);
         }},
        {"CreateFineTuningJob",
         [this](auto* context, const auto& parent) {
           v1::CreateFineTuningJobRequest request;
           request.set_parent(parent);
           v1::FineTuningJob response;
           return jobs_->CreateFineTuningJob(context, request, &response);
         }},
        {"ListFineTuningJobs",
         [this](auto* context, const auto& parent) {
           v1::ListFineTuningJobsRequest request;
           request.set_parent(parent);
           v1::ListFineTuningJobsResponse response;
           return jobs_->ListFineTuningJobs(context, request, &response);
         }},
        {"Sample with a base model",
         [this](auto* context, const auto& parent) {
           v1::SampleRequest request;
           request.set_parent(parent);
           request.set_base_model("baseModels/tiny");
           return Drain(sampling_->Sample(context, request), v1::SampleResponse());
         }},
    };
  }

  std::map<std::string, AnyCall> AdminCalls() {
    return {
        {"ImportBaseModel",
         [this](auto* context, const auto&) {
           v1::BaseModel response;
           const auto stream = admin_->ImportBaseModel(context, &response);
           stream->WritesDone();
           return stream->Finish();
         }},
        {"TrainVector",
         [this](auto* context, const auto&) {
           admin::v1::Vector response;
           const auto stream = admin_->TrainVector(context, &response);
           stream->WritesDone();
           return stream->Finish();
         }},
        {"GetVector",
         [this](auto* context, const auto& name) {
           admin::v1::GetVectorRequest request;
           request.set_name(name);
           admin::v1::Vector response;
           return admin_->GetVector(context, request, &response);
         }},
        {"ListVectors",
         [this](auto* context, const auto&) {
           admin::v1::ListVectorsResponse response;
           return admin_->ListVectors(context, {}, &response);
         }},
        {"CertifyVector",
         [this](auto* context, const auto& name) {
           admin::v1::CertifyVectorRequest request;
           request.set_name(name);
           admin::v1::SignedCertificate response;
           return admin_->CertifyVector(context, request, &response);
         }},
        {"ActivateVector",
         [this](auto* context, const auto& name) {
           admin::v1::ActivateVectorRequest request;
           request.set_name(name);
           admin::v1::Vector response;
           return admin_->ActivateVector(context, request, &response);
         }},
        {"GetVectorCertificate",
         [this](auto* context, const auto& name) {
           admin::v1::GetVectorCertificateRequest request;
           request.set_name(name);
           admin::v1::SignedCertificate response;
           return admin_->GetVectorCertificate(context, request, &response);
         }},
        {"RetireVector",
         [this](auto* context, const auto& name) {
           admin::v1::RetireVectorRequest request;
           request.set_name(name);
           admin::v1::Vector response;
           return admin_->RetireVector(context, request, &response);
         }},
        {"GetJobProtection",
         [this](auto* context, const auto& name) {
           admin::v1::GetJobProtectionRequest request;
           request.set_name(name);
           admin::v1::JobProtection response;
           return admin_->GetJobProtection(context, request, &response);
         }},
        {"ListWorkers",
         [this](auto* context, const auto&) {
           admin::v1::ListWorkersResponse response;
           return admin_->ListWorkers(context, {}, &response);
         }},
    };
  }

  std::map<std::string, AnyCall> SafetyRowsCalls() {
    return {
        {"SetSafetyRows",
         [this](auto* context, const auto& name) {
           admin::v1::SetSafetyRowsRequest request;
           request.set_name(name);
           admin::v1::SafetyRows response;
           return safety_rows_->SetSafetyRows(context, request, &response);
         }},
        {"GetSafetyRows",
         [this](auto* context, const auto& name) {
           admin::v1::GetSafetyRowsRequest request;
           request.set_name(name);
           admin::v1::SafetyRows response;
           return safety_rows_->GetSafetyRows(context, request, &response);
         }},
        {"RemoveSafetyRows",
         [this](auto* context, const auto& name) {
           admin::v1::RemoveSafetyRowsRequest request;
           request.set_name(name);
           google::protobuf::Empty response;
           return safety_rows_->RemoveSafetyRows(context, request, &response);
         }},
    };
  }

  std::map<std::string, AnyCall> ScreenCalls() {
    return {
        {"SetScreen",
         [this](auto* context, const auto& name) {
           admin::v1::SetScreenRequest request;
           request.set_name(name);
           admin::v1::Screen response;
           return screens_->SetScreen(context, request, &response);
         }},
        {"GetScreen",
         [this](auto* context, const auto& name) {
           admin::v1::GetScreenRequest request;
           request.set_name(name);
           admin::v1::Screen response;
           return screens_->GetScreen(context, request, &response);
         }},
        {"RemoveScreen",
         [this](auto* context, const auto& name) {
           admin::v1::RemoveScreenRequest request;
           request.set_name(name);
           google::protobuf::Empty response;
           return screens_->RemoveScreen(context, request, &response);
         }},
    };
  }

  std::map<std::string, AnyCall> GateCalls() {
    return {
        {"SetGate",
         [this](auto* context, const auto& name) {
           admin::v1::SetGateRequest request;
           request.set_name(name);
           admin::v1::Gate response;
           return gates_->SetGate(context, request, &response);
         }},
        {"GetGate",
         [this](auto* context, const auto& name) {
           admin::v1::GetGateRequest request;
           request.set_name(name);
           admin::v1::Gate response;
           return gates_->GetGate(context, request, &response);
         }},
        {"RemoveGate",
         [this](auto* context, const auto& name) {
           admin::v1::RemoveGateRequest request;
           request.set_name(name);
           google::protobuf::Empty response;
           return gates_->RemoveGate(context, request, &response);
         }},
        {"ListWithheldJobs",
         [this](auto* context, const auto&) {
           admin::v1::ListWithheldJobsResponse response;
           return gates_->ListWithheldJobs(context, {}, &response);
         }},
        {"GetGateReport",
         [this](auto* context, const auto& name) {
           admin::v1::GetGateReportRequest request;
           request.set_name(name);
           admin::v1::JobGate response;
           return gates_->GetGateReport(context, request, &response);
         }},
        {"ReleaseJob",
         [this](auto* context, const auto& name) {
           admin::v1::ReleaseJobRequest request;
           request.set_name(name);
           admin::v1::JobGate response;
           return gates_->ReleaseJob(context, request, &response);
         }},
        {"RefuseJob",
         [this](auto* context, const auto& name) {
           admin::v1::RefuseJobRequest request;
           request.set_name(name);
           admin::v1::JobGate response;
           return gates_->RefuseJob(context, request, &response);
         }},
        {"GetTenantStanding",
         [this](auto* context, const auto& name) {
           admin::v1::GetTenantStandingRequest request;
           request.set_name(name);
           admin::v1::TenantStanding response;
           return gates_->GetTenantStanding(context, request, &response);
         }},
        {"UnfreezeTenant",
         [this](auto* context, const auto& name) {
           admin::v1::UnfreezeTenantRequest request;
           request.set_name(name);
           admin::v1::TenantStanding response;
           return gates_->UnfreezeTenant(context, request, &response);
         }},
    };
  }

  std::map<std::string, AnyCall> WorkerCalls() {
    return {
        {"Synchronize",
         [this](auto* context, const auto&) {
           worker::v1::SynchronizeResponse response;
           worker::v1::SynchronizeRequest request = WorkerRequest("w");
           request.mutable_idle();
           request.set_draining(true);
           return workers_->Synchronize(context, request, &response);
         }},
        {"ReadBlob",
         [this](auto* context, const auto&) {
           return Drain(workers_->ReadBlob(context, {}), worker::v1::ReadBlobResponse());
         }},
        {"WriteBlob",
         [this](auto* context, const auto&) {
           worker::v1::WriteBlobResponse response;
           const auto stream = workers_->WriteBlob(context, &response);
           stream->WritesDone();
           return stream->Finish();
         }},
        {"ReturnSample",
         [this](auto* context, const auto&) {
           worker::v1::ReturnSampleResponse response;
           const auto stream = workers_->ReturnSample(context, &response);
           stream->WritesDone();
           return stream->Finish();
         }},
    };
  }

  absl::Status Do(const AnyCall& call, const std::string& key, const std::string& name) {
    return FromGrpcStatus(call(ContextWith(key).get(), name));
  }

  std::string others_dataset_;
};

TEST_F(TenantsTest, AnothersThingAndNoneAnswerAlike) {
  MakeReady();
  const std::string dataset = UploadRows(40);
  others_dataset_ = UploadRows(40, kOtherKey, "other");
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(dataset));
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  ASSERT_OK(FinishDelta("w", taken.work().lease()));

  const auto alike = [&](const std::string& rpc, const AnyCall& call, const std::string& name,
                         const std::string& none, const std::string& replaced_by) {
    absl::Status theirs = Do(call, kOtherKey, name);
    absl::Status missing = Do(call, kOtherKey, none);
    EXPECT_EQ(theirs.code(), absl::StatusCode::kNotFound) << rpc << theirs;
    EXPECT_EQ(theirs.code(), missing.code()) << rpc;
    EXPECT_EQ(ErrorReason(theirs), ErrorReason(missing)) << rpc;
    EXPECT_EQ(absl::StrReplaceAll(theirs.message(), {{name, "NAME"}}),
              absl::StrReplaceAll(missing.message(), {{none, "NAME"}}))
        << rpc << replaced_by;
  };
  for (const auto& [rpc, call] : DatasetCalls()) {
    alike(rpc, call, dataset, "tenants/acme/datasets/ds-none", "");
    alike(rpc, call, dataset, "tenants/other/datasets/ds-none", "");
  }
  for (const auto& [rpc, call] : JobCalls()) {
    alike(rpc, call, job.name(), "tenants/acme/fineTuningJobs/job-none", "");
    alike(rpc, call, job.name(), "tenants/nobody/fineTuningJobs/job-none", "");
  }
  for (const auto& [rpc, call] : ParentCalls()) {
    alike(rpc, call, "tenants/acme", "tenants/nobody", "");
  }
  // And what was tried has changed nothing.
  ASSERT_OK_AND_ASSIGN(const auto still, GetJob(job.name()));
  EXPECT_EQ(still.state(), v1::FineTuningJob::SUCCEEDED);
  EXPECT_OK(GetDataset(dataset));
}

TEST_F(TenantsTest, AnothersWithheldJobAndNoneAnswerAlike) {
  MakeReady();
  ASSERT_OK(SetGate());
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(UploadRows(40)));
  others_dataset_ = UploadRows(40, kOtherKey, "other");
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  ASSERT_OK(FinishGate("w", taken.work(), /*passed=*/false));
  ASSERT_OK_AND_ASSIGN(const auto withheld, GetJob(job.name()));
  ASSERT_EQ(withheld.state(), v1::FineTuningJob::WITHHELD);
  const std::string none = "tenants/acme/fineTuningJobs/job-none";
  for (const auto& [rpc, call] : JobCalls()) {
    const absl::Status theirs = Do(call, kOtherKey, job.name());
    const absl::Status missing = Do(call, kOtherKey, none);
    EXPECT_EQ(theirs.code(), absl::StatusCode::kNotFound) << rpc << theirs;
    EXPECT_EQ(ErrorReason(theirs), ErrorReason(missing)) << rpc;
    EXPECT_EQ(absl::StrReplaceAll(theirs.message(), {{job.name(), "NAME"}}),
              absl::StrReplaceAll(missing.message(), {{none, "NAME"}}))
        << rpc;
  }
}

TEST_F(TenantsTest, EveryRpcNeedsAKeyOfItsRole) {
  std::map<std::string, AnyCall> tenant_calls = DatasetCalls();
  tenant_calls.merge(JobCalls());
  tenant_calls.merge(ParentCalls());
  struct Group {
    std::map<std::string, AnyCall> calls;
    const char* reason;
    std::vector<const char*> wrong_keys;
  };
  const std::vector<Group> groups = {
      {tenant_calls, "TENANT_ONLY", {kOperatorKey, kWorkerKey}},
      {AdminCalls(), "OPERATOR_ONLY", {kTenantKey, kWorkerKey}},
      {GateCalls(), "OPERATOR_ONLY", {kTenantKey, kWorkerKey}},
      {SafetyRowsCalls(), "OPERATOR_ONLY", {kTenantKey, kWorkerKey}},
      {ScreenCalls(), "OPERATOR_ONLY", {kTenantKey, kWorkerKey}},
      {WorkerCalls(), "WORKER_ONLY", {kTenantKey, kOperatorKey}},
  };
  size_t calls = 0;
  for (const Group& group : groups) {
    for (const auto& [rpc, call] : group.calls) {
      ++calls;
      EXPECT_THAT(Do(call, "", "x"),
                  StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_MISSING"))
          << rpc;
      EXPECT_THAT(Do(call, "guessed", "x"),
                  StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_INVALID"))
          << rpc;
      for (const char* key : group.wrong_keys) {
        EXPECT_THAT(Do(call, key, "x"), StatusIs(absl::StatusCode::kPermissionDenied, group.reason))
            << rpc;
      }
    }
  }
  EXPECT_EQ(calls, 50u) << "an RPC was added: put it into one of the tables above";
}

TEST_F(TenantsTest, OperatorsMayListBaseModels) {
  ASSERT_OK(ImportTiny());
  for (const char* key : {kTenantKey, kOperatorKey}) {
    v1::ListBaseModelsResponse list;
    EXPECT_TRUE(models_->ListBaseModels(ContextWith(key).get(), {}, &list).ok());
    EXPECT_EQ(list.base_models_size(), 1);
  }
  v1::ListBaseModelsResponse list;
  EXPECT_THAT(FromGrpcStatus(models_->ListBaseModels(ContextWith(kWorkerKey).get(), {}, &list)),
              StatusIs(absl::StatusCode::kPermissionDenied, "TENANT_ONLY"));
}

TEST_F(TenantsTest, UsageIsForItsTenantAndForOperators) {
  MakeReady();
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(UploadRows(40)));
  ASSERT_OK_AND_ASSIGN(const auto taken, Idle("w"));
  ASSERT_OK(FinishDelta("w", taken.work().lease()));
  const auto ask = [&](const std::string& key, const std::string& parent, int* months = nullptr) {
    v1::ListMonthlyUsageRequest request;
    request.set_parent(parent);
    v1::ListMonthlyUsageResponse list;
    const auto status =
        FromGrpcStatus(usage_->ListMonthlyUsage(ContextWith(key).get(), request, &list));
    if (months != nullptr) *months = list.months_size();
    return status;
  };
  for (const char* key : {kTenantKey, kOperatorKey}) {
    int months = 0;
    EXPECT_OK(ask(key, "tenants/acme", &months));
    EXPECT_EQ(months, 1);
  }
  int months = -1;
  EXPECT_OK(ask(kOtherKey, "tenants/other", &months));
  EXPECT_EQ(months, 0);
  const absl::Status theirs = ask(kOtherKey, "tenants/acme");
  const absl::Status missing = ask(kOtherKey, "tenants/nobody");
  EXPECT_THAT(theirs, StatusIs(absl::StatusCode::kNotFound, "TENANT_NOT_FOUND"));
  EXPECT_EQ(absl::StrReplaceAll(theirs.message(), {{"acme", "X"}}),
            absl::StrReplaceAll(missing.message(), {{"nobody", "X"}}));
  EXPECT_THAT(ask(kWorkerKey, "tenants/acme"),
              StatusIs(absl::StatusCode::kPermissionDenied, "TENANT_ONLY"));
  EXPECT_THAT(ask("", "tenants/acme"),
              StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_MISSING"));
}

TEST_F(TenantsTest, ListsShowOnesOwn) {
  MakeReady();
  const std::string mine = UploadRows(40);
  UploadRows(40, kOtherKey, "other");
  v1::ListDatasetsRequest request;
  request.set_parent("tenants/acme");
  v1::ListDatasetsResponse list;
  ASSERT_TRUE(datasets_->ListDatasets(ContextWith(kTenantKey).get(), request, &list).ok());
  ASSERT_EQ(list.datasets_size(), 1);
  EXPECT_EQ(list.datasets(0).name(), mine);
}

}  // namespace
}  // namespace ballast::server::testing
