// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_TESTING_FAKE_SERVER_H_
#define BALLAST_CLIENT_TESTING_FAKE_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "ballast/admin/v1/admin_service.grpc.pb.h"
#include "ballast/admin/v1/gate_service.grpc.pb.h"
#include "ballast/admin/v1/safety_rows.grpc.pb.h"
#include "ballast/admin/v1/screen.grpc.pb.h"
#include "ballast/v1/base_model_service.grpc.pb.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/delta_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/v1/sampling_service.grpc.pb.h"
#include "client/cpp/connection.h"
#include "common/rpc/grpc_status.h"

namespace ballast::client::testing {

// A real gRPC server on a port of its own whose methods are scripted by the test: assign the
// handlers before calling. A method without a handler answers UNIMPLEMENTED. Handlers run on gRPC's
// threads.
class FakeServer {
 public:
  template <typename Request, typename Response>
  using Handler = std::function<absl::Status(grpc::ServerContext&, const Request&, Response&)>;

  FakeServer() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&base_models_);
    builder.RegisterService(&datasets_);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&deltas_);
    builder.RegisterService(&sampling_);
    builder.RegisterService(&admin_);
    builder.RegisterService(&gates_);
    builder.RegisterService(&safety_rows_);
    builder.RegisterService(&screens_);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeServer() { Stop(); }

  // Returns when no handler runs any more: before what they refer to goes.
  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }

  // Options for a client of this server that notes waits in `slept` instead of waiting.
  ConnectionOptions Options(absl::Duration* slept = nullptr) const {
    ConnectionOptions options;
    options.server_address = address_;
    options.api_key = "test-key";
    options.deadline = absl::Seconds(10);
    options.retry.max_attempts = 3;
    options.retry.max_reconnects = 4;
    options.sleep = [slept](absl::Duration duration) {
      if (slept != nullptr) *slept += duration;
    };
    return options;
  }

  Handler<v1::ListBaseModelsRequest, v1::ListBaseModelsResponse> list_base_models;
  Handler<v1::CreateDatasetRequest, v1::Dataset> create_dataset;
  Handler<v1::GetDatasetRequest, v1::Dataset> get_dataset;
  Handler<v1::DeleteDatasetRequest, google::protobuf::Empty> delete_dataset;
  Handler<v1::GetUploadStatusRequest, v1::UploadStatus> get_upload_status;
  Handler<v1::StartDirectUploadRequest, v1::DirectUpload> start_direct_upload;
  Handler<v1::FinishDirectUploadRequest, v1::Dataset> finish_direct_upload;
  std::function<absl::Status(grpc::ServerContext&, grpc::ServerReader<v1::WriteDatasetRequest>&,
                             v1::WriteDatasetResponse&)>
      write_dataset;
  Handler<v1::CreateFineTuningJobRequest, v1::FineTuningJob> create_job;
  Handler<v1::GetFineTuningJobRequest, v1::FineTuningJob> get_job;
  std::function<absl::Status(grpc::ServerContext&, const v1::WatchFineTuningJobRequest&,
                             grpc::ServerWriter<v1::WatchFineTuningJobResponse>&)>
      watch_job;
  Handler<v1::GetDeltaManifestRequest, v1::DeltaManifest> get_delta_manifest;
  Handler<v1::GetDeltaLinksRequest, v1::DeltaLinks> get_delta_links;
  std::function<absl::Status(grpc::ServerContext&, const v1::ReadDeltaRequest&,
                             grpc::ServerWriter<v1::ReadDeltaResponse>&)>
      read_delta;
  std::function<absl::Status(grpc::ServerContext&, const v1::SampleRequest&,
                             grpc::ServerWriter<v1::SampleResponse>&)>
      sample;
  std::function<absl::Status(
      grpc::ServerContext&, grpc::ServerReader<admin::v1::ImportBaseModelRequest>&, v1::BaseModel&)>
      import_base_model;
  std::function<absl::Status(
      grpc::ServerContext&, grpc::ServerReader<admin::v1::TrainVectorRequest>&, admin::v1::Vector&)>
      train_vector;
  Handler<admin::v1::GetVectorRequest, admin::v1::Vector> get_vector;
  Handler<admin::v1::ListVectorsRequest, admin::v1::ListVectorsResponse> list_vectors;
  Handler<admin::v1::CertifyVectorRequest, admin::v1::SignedCertificate> certify_vector;
  Handler<admin::v1::ActivateVectorRequest, admin::v1::Vector> activate_vector;
  Handler<admin::v1::GetVectorCertificateRequest, admin::v1::SignedCertificate>
      get_vector_certificate;
  Handler<v1::GetBaseModelRequest, v1::BaseModel> get_base_model;
  Handler<admin::v1::SetSafetyRowsRequest, admin::v1::SafetyRows> set_safety_rows;
  Handler<admin::v1::GetSafetyRowsRequest, admin::v1::SafetyRows> get_safety_rows;
  Handler<admin::v1::RemoveSafetyRowsRequest, google::protobuf::Empty> remove_safety_rows;
  Handler<admin::v1::SetScreenRequest, admin::v1::Screen> set_screen;
  Handler<admin::v1::GetScreenRequest, admin::v1::Screen> get_screen;
  Handler<admin::v1::RemoveScreenRequest, google::protobuf::Empty> remove_screen;
  Handler<admin::v1::SetGateRequest, admin::v1::Gate> set_gate;
  Handler<admin::v1::GetGateRequest, admin::v1::Gate> get_gate;
  Handler<admin::v1::RemoveGateRequest, google::protobuf::Empty> remove_gate;
  Handler<admin::v1::ListWithheldJobsRequest, admin::v1::ListWithheldJobsResponse>
      list_withheld_jobs;
  Handler<admin::v1::GetGateReportRequest, admin::v1::JobGate> get_gate_report;
  Handler<admin::v1::ReleaseJobRequest, admin::v1::JobGate> release_job;
  Handler<admin::v1::RefuseJobRequest, admin::v1::JobGate> refuse_job;
  Handler<admin::v1::GetTenantStandingRequest, admin::v1::TenantStanding> get_tenant_standing;
  Handler<admin::v1::UnfreezeTenantRequest, admin::v1::TenantStanding> unfreeze_tenant;

 private:
  // Calls the handler if there is one.
  template <typename Function, typename... Arguments>
  static grpc::Status Run(const Function& handler, Arguments&&... arguments) {
    if (!handler) return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not scripted");
    return ToGrpcStatus(handler(std::forward<Arguments>(arguments)...));
  }

  struct BaseModels : v1::BaseModelService::Service {
    explicit BaseModels(FakeServer* fake) : fake(fake) {}
    grpc::Status ListBaseModels(grpc::ServerContext* c, const v1::ListBaseModelsRequest* request,
                                v1::ListBaseModelsResponse* response) override {
      return Run(fake->list_base_models, *c, *request, *response);
    }
    grpc::Status GetBaseModel(grpc::ServerContext* c, const v1::GetBaseModelRequest* request,
                              v1::BaseModel* response) override {
      return Run(fake->get_base_model, *c, *request, *response);
    }
    FakeServer* fake;
  };
  struct Datasets : v1::DatasetService::Service {
    explicit Datasets(FakeServer* fake) : fake(fake) {}
    grpc::Status CreateDataset(grpc::ServerContext* c, const v1::CreateDatasetRequest* request,
                               v1::Dataset* response) override {
      return Run(fake->create_dataset, *c, *request, *response);
    }
    grpc::Status GetDataset(grpc::ServerContext* c, const v1::GetDatasetRequest* request,
                            v1::Dataset* response) override {
      return Run(fake->get_dataset, *c, *request, *response);
    }
    grpc::Status DeleteDataset(grpc::ServerContext* c, const v1::DeleteDatasetRequest* request,
                               google::protobuf::Empty* response) override {
      return Run(fake->delete_dataset, *c, *request, *response);
    }
    grpc::Status GetUploadStatus(grpc::ServerContext* c, const v1::GetUploadStatusRequest* request,
                                 v1::UploadStatus* response) override {
      return Run(fake->get_upload_status, *c, *request, *response);
    }
    grpc::Status StartDirectUpload(grpc::ServerContext* c,
                                   const v1::StartDirectUploadRequest* request,
                                   v1::DirectUpload* response) override {
      return Run(fake->start_direct_upload, *c, *request, *response);
    }
    grpc::Status FinishDirectUpload(grpc::ServerContext* c,
                                    const v1::FinishDirectUploadRequest* request,
                                    v1::Dataset* response) override {
      return Run(fake->finish_direct_upload, *c, *request, *response);
    }
    grpc::Status WriteDataset(grpc::ServerContext* c,
                              grpc::ServerReader<v1::WriteDatasetRequest>* reader,
                              v1::WriteDatasetResponse* response) override {
      return Run(fake->write_dataset, *c, *reader, *response);
    }
    FakeServer* fake;
  };
  struct Jobs : v1::FineTuningService::Service {
    explicit Jobs(FakeServer* fake) : fake(fake) {}
    grpc::Status CreateFineTuningJob(grpc::ServerContext* c,
                                     const v1::CreateFineTuningJobRequest* request,
                                     v1::FineTuningJob* response) override {
      return Run(fake->create_job, *c, *request, *response);
    }
    grpc::Status GetFineTuningJob(grpc::ServerContext* c,
                                  const v1::GetFineTuningJobRequest* request,
                                  v1::FineTuningJob* response) override {
      return Run(fake->get_job, *c, *request, *response);
    }
    grpc::Status WatchFineTuningJob(
        grpc::ServerContext* c, const v1::WatchFineTuningJobRequest* request,
        grpc::ServerWriter<v1::WatchFineTuningJobResponse>* writer) override {
      return Run(fake->watch_job, *c, *request, *writer);
    }
    FakeServer* fake;
  };
  struct Deltas : v1::DeltaService::Service {
    explicit Deltas(FakeServer* fake) : fake(fake) {}
    grpc::Status GetDeltaManifest(grpc::ServerContext* c,
                                  const v1::GetDeltaManifestRequest* request,
                                  v1::DeltaManifest* response) override {
      return Run(fake->get_delta_manifest, *c, *request, *response);
    }
    grpc::Status GetDeltaLinks(grpc::ServerContext* c, const v1::GetDeltaLinksRequest* request,
                               v1::DeltaLinks* response) override {
      return Run(fake->get_delta_links, *c, *request, *response);
    }
    grpc::Status ReadDelta(grpc::ServerContext* c, const v1::ReadDeltaRequest* request,
                           grpc::ServerWriter<v1::ReadDeltaResponse>* writer) override {
      return Run(fake->read_delta, *c, *request, *writer);
    }
    FakeServer* fake;
  };
  struct Sampling : v1::SamplingService::Service {
    explicit Sampling(FakeServer* fake) : fake(fake) {}
    grpc::Status Sample(grpc::ServerContext* c, const v1::SampleRequest* request,
                        grpc::ServerWriter<v1::SampleResponse>* writer) override {
      return Run(fake->sample, *c, *request, *writer);
    }
    FakeServer* fake;
  };
  struct Admin : admin::v1::AdminService::Service {
    explicit Admin(FakeServer* fake) : fake(fake) {}
    grpc::Status ImportBaseModel(grpc::ServerContext* c,
                                 grpc::ServerReader<admin::v1::ImportBaseModelRequest>* reader,
                                 v1::BaseModel* response) override {
      return Run(fake->import_base_model, *c, *reader, *response);
    }
    grpc::Status TrainVector(grpc::ServerContext* c,
                             grpc::ServerReader<admin::v1::TrainVectorRequest>* reader,
                             admin::v1::Vector* response) override {
      return Run(fake->train_vector, *c, *reader, *response);
    }
    grpc::Status GetVector(grpc::ServerContext* c, const admin::v1::GetVectorRequest* request,
                           admin::v1::Vector* response) override {
      return Run(fake->get_vector, *c, *request, *response);
    }
    grpc::Status ListVectors(grpc::ServerContext* c, const admin::v1::ListVectorsRequest* request,
                             admin::v1::ListVectorsResponse* response) override {
      return Run(fake->list_vectors, *c, *request, *response);
    }
    grpc::Status CertifyVector(grpc::ServerContext* c,
                               const admin::v1::CertifyVectorRequest* request,
                               admin::v1::SignedCertificate* response) override {
      return Run(fake->certify_vector, *c, *request, *response);
    }
    grpc::Status ActivateVector(grpc::ServerContext* c,
                                const admin::v1::ActivateVectorRequest* request,
                                admin::v1::Vector* response) override {
      return Run(fake->activate_vector, *c, *request, *response);
    }
    grpc::Status GetVectorCertificate(grpc::ServerContext* c,
                                      const admin::v1::GetVectorCertificateRequest* request,
                                      admin::v1::SignedCertificate* response) override {
      return Run(fake->get_vector_certificate, *c, *request, *response);
    }
    FakeServer* fake;
  };

  struct Gates : admin::v1::GateService::Service {
    explicit Gates(FakeServer* fake) : fake(fake) {}
    grpc::Status SetGate(grpc::ServerContext* c, const admin::v1::SetGateRequest* request,
                         admin::v1::Gate* response) override {
      return Run(fake->set_gate, *c, *request, *response);
    }
    grpc::Status GetGate(grpc::ServerContext* c, const admin::v1::GetGateRequest* request,
                         admin::v1::Gate* response) override {
      return Run(fake->get_gate, *c, *request, *response);
    }
    grpc::Status RemoveGate(grpc::ServerContext* c, const admin::v1::RemoveGateRequest* request,
                            google::protobuf::Empty* response) override {
      return Run(fake->remove_gate, *c, *request, *response);
    }
    grpc::Status ListWithheldJobs(grpc::ServerContext* c,
                                  const admin::v1::ListWithheldJobsRequest* request,
                                  admin::v1::ListWithheldJobsResponse* response) override {
      return Run(fake->list_withheld_jobs, *c, *request, *response);
    }
    grpc::Status GetGateReport(grpc::ServerContext* c,
                               const admin::v1::GetGateReportRequest* request,
                               admin::v1::JobGate* response) override {
      return Run(fake->get_gate_report, *c, *request, *response);
    }
    grpc::Status ReleaseJob(grpc::ServerContext* c, const admin::v1::ReleaseJobRequest* request,
                            admin::v1::JobGate* response) override {
      return Run(fake->release_job, *c, *request, *response);
    }
    grpc::Status RefuseJob(grpc::ServerContext* c, const admin::v1::RefuseJobRequest* request,
                           admin::v1::JobGate* response) override {
      return Run(fake->refuse_job, *c, *request, *response);
    }
    grpc::Status GetTenantStanding(grpc::ServerContext* c,
                                   const admin::v1::GetTenantStandingRequest* request,
                                   admin::v1::TenantStanding* response) override {
      return Run(fake->get_tenant_standing, *c, *request, *response);
    }
    grpc::Status UnfreezeTenant(grpc::ServerContext* c,
                                const admin::v1::UnfreezeTenantRequest* request,
                                admin::v1::TenantStanding* response) override {
      return Run(fake->unfreeze_tenant, *c, *request, *response);
    }
    FakeServer* fake;
  };

  struct SafetyRows : admin::v1::SafetyRowsService::Service {
    explicit SafetyRows(FakeServer* fake) : fake(fake) {}
    grpc::Status SetSafetyRows(grpc::ServerContext* c,
                               const admin::v1::SetSafetyRowsRequest* request,
                               admin::v1::SafetyRows* response) override {
      return Run(fake->set_safety_rows, *c, *request, *response);
    }
    grpc::Status GetSafetyRows(grpc::ServerContext* c,
                               const admin::v1::GetSafetyRowsRequest* request,
                               admin::v1::SafetyRows* response) override {
      return Run(fake->get_safety_rows, *c, *request, *response);
    }
    grpc::Status RemoveSafetyRows(grpc::ServerContext* c,
                                  const admin::v1::RemoveSafetyRowsRequest* request,
                                  google::protobuf::Empty* response) override {
      return Run(fake->remove_safety_rows, *c, *request, *response);
    }
    FakeServer* fake;
  };

  struct Screens : admin::v1::ScreenService::Service {
    explicit Screens(FakeServer* fake) : fake(fake) {}
    grpc::Status SetScreen(grpc::ServerContext* c, const admin::v1::SetScreenRequest* request,
                           admin::v1::Screen* response) override {
      return Run(fake->set_screen, *c, *request, *response);
    }
    grpc::Status GetScreen(grpc::ServerContext* c, const admin::v1::GetScreenRequest* request,
                           admin::v1::Screen* response) override {
      return Run(fake->get_screen, *c, *request, *response);
    }
    grpc::Status RemoveScreen(grpc::ServerContext* c, const admin::v1::RemoveScreenRequest* request,
                              google::protobuf::Empty* response) override {
      return Run(fake->remove_screen, *c, *request, *response);
    }
    FakeServer* fake;
  };

  BaseModels base_models_{this};
  Datasets datasets_{this};
  Jobs jobs_{this};
  Deltas deltas_{this};
  Sampling sampling_{this};
  Admin admin_{this};
  Gates gates_{this};
  SafetyRows safety_rows_{this};
  Screens screens_{this};
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace ballast::client::testing

#endif  // BALLAST_CLIENT_TESTING_FAKE_SERVER_H_
