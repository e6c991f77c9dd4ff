// SPDX-License-Identifier: Apache-2.0
#include "server/testing/server_fixture.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"

namespace ballast::server::testing {
namespace {

constexpr size_t kPiece = 64 << 10;

// The response or the failure of a finished call. The response comes by reference: it is filled
// while the call, the other argument, is evaluated.
template <typename Response>
absl::StatusOr<Response> ResultOf(const grpc::Status& status, const Response& response) {
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

std::string TestData(const std::string& path) {
  const char* source = std::getenv("BALLAST_SOURCE_DIR");
  return absl::StrCat(source == nullptr ? "." : source, "/tests/testdata/", path);
}

}  // namespace

std::unique_ptr<grpc::ClientContext> ContextWith(const std::string& key) {
  auto context = std::make_unique<grpc::ClientContext>();
  if (!key.empty()) context->AddMetadata("authorization", "Bearer " + key);
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  return context;
}

void ServerFixture::StartServer() {
  config::v1::ServerConfig config;
  const auto add = [&](const char* key, config::v1::ApiKey::Role role, const char* tenant) {
    auto* entry = config.add_api_keys();
    entry->set_digest(DigestOf(key));
    entry->set_role(role);
    entry->set_tenant(tenant);
  };
  add(kTenantKey, config::v1::ApiKey::TENANT, "acme");
  add(kOtherKey, config::v1::ApiKey::TENANT, "other");
  add(kOperatorKey, config::v1::ApiKey::OPERATOR, "");
  add(kWorkerKey, config::v1::ApiKey::WORKER, "");
  ASSERT_OK_AND_ASSIGN(authenticator_, ApiKeyAuthenticator::Create(config.api_keys()));
  if (PostgresTestSchema::IsThere()) {
    if (!postgres_.has_value()) postgres_.emplace();
    store_ = postgres_->Open();
  } else {
    ASSERT_OK_AND_ASSIGN(store_, SqliteJobStore::Open(folder_.path() + "/ballast.db"));
  }
  ASSERT_OK_AND_ASSIGN(blobs_, LocalBlobStore::OpenRoot(folder_.path() + "/blobs"));
  options_.scratch_dir = folder_.path() + "/scratch";
  row_checks_ = std::make_unique<TextRowChecks>(*blobs_, options_.scratch_dir);
  options_.listen_address = "127.0.0.1:0";
  options_.executor_threads = 4;
  ASSERT_OK_AND_ASSIGN(server_, Server::Start({ServerStore(), ServerBlobs(), *authenticator_,
                                               ServerRowChecks(), clock_, server_signer_},
                                              options_));
  grpc::ChannelArguments arguments;
  // Servers of earlier tests must not share a connection with this one.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ =
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments);
  admin_ = admin::v1::AdminService::NewStub(channel_);
  gates_ = admin::v1::GateService::NewStub(channel_);
  safety_rows_ = admin::v1::SafetyRowsService::NewStub(channel_);
  screens_ = admin::v1::ScreenService::NewStub(channel_);
  models_ = v1::BaseModelService::NewStub(channel_);
  datasets_ = v1::DatasetService::NewStub(channel_);
  jobs_ = v1::FineTuningService::NewStub(channel_);
  deltas_ = v1::DeltaService::NewStub(channel_);
  usage_ = v1::UsageService::NewStub(channel_);
  sampling_ = v1::SamplingService::NewStub(channel_);
  workers_ = worker::v1::WorkerService::NewStub(channel_);
}

void ServerFixture::LetLeasesEnd() {
  constexpr absl::Duration kLonger = absl::Seconds(35), kStep = absl::Seconds(5);
  for (absl::Duration passed; passed < kLonger; passed += kStep) {
    clock_.Advance(kStep);
    server_->TickForTest();
  }
}

void ServerFixture::StopServer() {
  server_.reset();
  row_checks_.reset();
  blobs_.reset();
  store_.reset();
}

std::vector<std::pair<std::string, std::string>> ServerFixture::TinyFiles() {
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& [folder, name] : std::vector<std::pair<std::string, std::string>>{
           {"tiny_llama", "config.json"},
           {"tiny_llama", "model.safetensors"},
           {"tiny_tokenizer", "tokenizer.json"},
           {"tiny_tokenizer", "tokenizer_config.json"},
           {"tiny_tokenizer", "generation_config.json"}}) {
    files.emplace_back(name, ReadFile(TestData(absl::StrCat(folder, "/", name))).value_or(""));
  }
  return files;
}

absl::StatusOr<v1::BaseModel> ServerFixture::ImportTiny(const std::string& id) {
  return Import(id, TinyFiles());
}

absl::StatusOr<v1::BaseModel> ServerFixture::Import(
    const std::string& id, const std::vector<std::pair<std::string, std::string>>& files) {
  const auto context = ContextWith(kOperatorKey);
  v1::BaseModel model;
  const auto stream = admin_->ImportBaseModel(context.get(), &model);
  admin::v1::ImportBaseModelRequest request;
  request.mutable_options()->set_base_model_id(id);
  // By row, progress is told at evaluations alone; most tests look at each heartbeat's.
  request.mutable_options()->set_vector_policy(admin::v1::VECTOR_POLICY_ALWAYS);
  bool open = stream->Write(request);
  for (const auto& [name, bytes] : files) {
    request.mutable_file_start()->set_file_name(name);
    request.mutable_file_start()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    open = open && stream->Write(request);
    for (size_t at = 0; open && at < bytes.size(); at += kPiece) {
      request.set_data(bytes.substr(at, kPiece));
      open = stream->Write(request);
    }
  }
  stream->WritesDone();
  return ResultOf(stream->Finish(), model);
}

absl::StatusOr<admin::v1::Vector> ServerFixture::TrainVectorWith(const VectorData& data) {
  const auto context = ContextWith(kOperatorKey);
  admin::v1::Vector vector;
  const auto stream = admin_->TrainVector(context.get(), &vector);
  admin::v1::TrainVectorRequest request;
  *request.mutable_options() = data.options;
  request.mutable_options()->set_base_model("baseModels/tiny");
  bool open = stream->Write(request);
  request.set_prohibited_data(data.prohibited);
  open = open && stream->Write(request);
  request.set_benign_data(data.benign);
  open = open && stream->Write(request);
  if (!data.topics.empty()) {
    request.set_topics_data(data.topics);
    if (open) stream->Write(request);
  }
  stream->WritesDone();
  return ResultOf(stream->Finish(), vector);
}

absl::StatusOr<admin::v1::Vector> ServerFixture::TrainVector(const std::string& prohibited,
                                                             const std::string& benign) {
  VectorData data;
  data.prohibited = prohibited;
  data.benign = benign;
  return TrainVectorWith(data);
}

absl::StatusOr<admin::v1::Vector> ServerFixture::MakeVector() {
  auto vector = TrainVector(Rows(100), Rows(20));
  if (!vector.ok()) return vector;
  const auto response = Idle("maker");
  if (!response.ok()) return response.status();
  const auto& lease = response->work().lease();
  EXPECT_EQ(lease.resource(), vector->name());
  worker::v1::WriteBlobRequest kind;
  kind.set_sealed_vector(true);
  EXPECT_OK(WriteBlob(kind, "maker", lease, "sealed bytes"));
  worker::v1::SynchronizeRequest done = WorkerRequest("maker");
  *done.mutable_finished()->mutable_lease() = lease;
  done.mutable_finished()->mutable_vector()->set_ciphertext_digest(DigestOf("sealed bytes"));
  auto& report = *done.mutable_finished()->mutable_vector()->mutable_report();
  report.set_prohibited_loss_without(4.0);
  report.set_prohibited_loss_with(0.1);
  done.set_draining(true);
  EXPECT_OK(Sync(done));
  admin::v1::GetVectorRequest request;
  request.set_name(vector->name());
  return ResultOf(admin_->GetVector(ContextWith(kOperatorKey).get(), request, &*vector), *vector);
}

absl::StatusOr<admin::v1::Vector> ServerFixture::Activate(const std::string& name,
                                                          const std::string& reason) {
  admin::v1::ActivateVectorRequest request;
  request.set_name(name);
  request.set_reason(reason);
  admin::v1::Vector vector;
  return ResultOf(admin_->ActivateVector(ContextWith(kOperatorKey).get(), request, &vector),
                  vector);
}

absl::StatusOr<admin::v1::SignedCertificate> ServerFixture::Certify(
    const admin::v1::SuiteResult& result, bool validate_only) {
  admin::v1::CertifyVectorRequest request;
  request.set_name(result.vector());
  *request.mutable_result() = result;
  request.set_validate_only(validate_only);
  admin::v1::SignedCertificate certificate;
  return ResultOf(admin_->CertifyVector(ContextWith(kOperatorKey).get(), request, &certificate),
                  certificate);
}

void ServerFixture::MakeReady() {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto vector, MakeVector());
  ASSERT_OK(Activate(vector.name()));
}

std::string ServerFixture::GateSet() {
  std::string lines;
  for (int i = 0; i < 36; ++i) {
    absl::StrAppend(&lines, R"({"prohibited": "gate prompt )", i, R"(", "category": "a"})", "\n",
                    R"({"look_alike": "how do I kill process )", i, "\"}\n");
  }
  return lines;
}

absl::StatusOr<admin::v1::Gate> ServerFixture::SetGate(const std::string& gate_set,
                                                       const std::string& key) {
  admin::v1::SetGateRequest request;
  request.set_name("baseModels/tiny/gate");
  request.set_gate_set(gate_set);
  admin::v1::Gate gate;
  return ResultOf(gates_->SetGate(ContextWith(key).get(), request, &gate), gate);
}

absl::StatusOr<v1::Dataset> ServerFixture::CreateDataset(const std::string& key,
                                                         const std::string& tenant) {
  v1::CreateDatasetRequest request;
  request.set_parent("tenants/" + tenant);
  request.mutable_dataset()->set_base_model("baseModels/tiny");
  v1::Dataset dataset;
  return ResultOf(datasets_->CreateDataset(ContextWith(key).get(), request, &dataset), dataset);
}

absl::StatusOr<v1::WriteDatasetResponse> ServerFixture::Write(const std::string& name,
                                                              int64_t offset,
                                                              const std::string& bytes,
                                                              const std::string& digest,
                                                              const std::string& key) {
  const auto context = ContextWith(key);
  v1::WriteDatasetResponse response;
  const auto stream = datasets_->WriteDataset(context.get(), &response);
  size_t at = 0;
  do {
    v1::WriteDatasetRequest request;
    if (at == 0) request.set_name(name);
    request.set_write_offset(offset + static_cast<int64_t>(at));
    request.set_data(bytes.substr(at, kPiece));
    at += request.data().size();
    if (at == bytes.size() && !digest.empty()) {
      request.set_finish(true);
      request.set_digest(digest);
    }
    if (!stream->Write(request)) break;
  } while (at < bytes.size());
  stream->WritesDone();
  return ResultOf(stream->Finish(), response);
}

v1::UploadStatus ServerFixture::UploadStatusOf(const std::string& name) {
  v1::GetUploadStatusRequest request;
  request.set_name(name);
  v1::UploadStatus status;
  EXPECT_TRUE(datasets_->GetUploadStatus(ContextWith(kTenantKey).get(), request, &status).ok());
  return status;
}

absl::StatusOr<v1::Dataset> ServerFixture::GetDataset(const std::string& name,
                                                      const std::string& key) {
  v1::GetDatasetRequest request;
  request.set_name(name);
  v1::Dataset dataset;
  return ResultOf(datasets_->GetDataset(ContextWith(key).get(), request, &dataset), dataset);
}

std::string ServerFixture::UploadRows(int rows, const std::string& key, const std::string& tenant) {
  const auto dataset = CreateDataset(key, tenant);
  EXPECT_OK(dataset);
  if (!dataset.ok()) return "";
  const std::string bytes = Rows(rows);
  EXPECT_OK(Write(dataset->name(), 0, bytes, DigestOf(bytes), key));
  server_->SettleForTest();
  return dataset->name();
}

absl::StatusOr<v1::FineTuningJob> ServerFixture::CreateJob(const std::string& dataset,
                                                           const std::string& key,
                                                           const std::string& tenant) {
  v1::CreateFineTuningJobRequest request;
  request.set_parent("tenants/" + tenant);
  request.mutable_fine_tuning_job()->set_base_model("baseModels/tiny");
  request.mutable_fine_tuning_job()->set_training_dataset(dataset);
  // No two jobs are created at the same time: the order of the queue is then known.
  clock_.Advance(absl::Milliseconds(1));
  v1::FineTuningJob job;
  return ResultOf(jobs_->CreateFineTuningJob(ContextWith(key).get(), request, &job), job);
}

absl::StatusOr<v1::FineTuningJob> ServerFixture::GetJob(const std::string& name,
                                                        const std::string& key) {
  v1::GetFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  return ResultOf(jobs_->GetFineTuningJob(ContextWith(key).get(), request, &job), job);
}

absl::StatusOr<v1::FineTuningJob> ServerFixture::Cancel(const std::string& name) {
  v1::CancelFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  return ResultOf(jobs_->CancelFineTuningJob(ContextWith(kTenantKey).get(), request, &job), job);
}

absl::StatusOr<v1::FineTuningJob> ServerFixture::Pause(const std::string& name) {
  v1::PauseFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  return ResultOf(jobs_->PauseFineTuningJob(ContextWith(kTenantKey).get(), request, &job), job);
}

absl::StatusOr<v1::FineTuningJob> ServerFixture::Resume(const std::string& name) {
  v1::ResumeFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  return ResultOf(jobs_->ResumeFineTuningJob(ContextWith(kTenantKey).get(), request, &job), job);
}

absl::StatusOr<std::string> ServerFixture::ReadDelta(const std::string& name,
                                                     const std::string& path, int64_t offset,
                                                     int64_t limit, const std::string& key) {
  v1::ReadDeltaRequest request;
  request.set_name(name);
  request.set_path(path);
  request.set_read_offset(offset);
  request.set_read_limit(limit);
  const auto context = ContextWith(key);
  const auto stream = deltas_->ReadDelta(context.get(), request);
  std::string bytes;
  v1::ReadDeltaResponse response;
  while (stream->Read(&response)) bytes += response.data();
  return ResultOf(stream->Finish(), bytes);
}

worker::v1::SynchronizeRequest ServerFixture::WorkerRequest(const std::string& id) {
  worker::v1::SynchronizeRequest request;
  request.set_worker_id(id);
  request.set_device("cpu");
  request.set_version("test");
  return request;
}

absl::StatusOr<worker::v1::SynchronizeResponse> ServerFixture::Sync(
    const worker::v1::SynchronizeRequest& request) {
  worker::v1::SynchronizeResponse response;
  return ResultOf(workers_->Synchronize(ContextWith(kWorkerKey).get(), request, &response),
                  response);
}

absl::StatusOr<worker::v1::SynchronizeResponse> ServerFixture::Idle(const std::string& id) {
  worker::v1::SynchronizeRequest request = WorkerRequest(id);
  request.mutable_idle();
  return Sync(request);
}

absl::StatusOr<worker::v1::SynchronizeResponse> ServerFixture::Busy(const std::string& id,
                                                                    const worker::v1::Lease& lease,
                                                                    int64_t step) {
  worker::v1::SynchronizeRequest request = WorkerRequest(id);
  *request.mutable_busy()->mutable_lease() = lease;
  request.mutable_busy()->set_step(step);
  request.mutable_busy()->set_total_steps(100);
  return Sync(request);
}

absl::StatusOr<std::string> ServerFixture::ReadBlob(const std::string& id,
                                                    const worker::v1::Lease& lease,
                                                    const std::string& blob) {
  worker::v1::ReadBlobRequest request;
  *request.mutable_lease() = lease;
  request.set_worker_id(id);
  request.set_blob(blob);
  const auto context = ContextWith(kWorkerKey);
  const auto stream = workers_->ReadBlob(context.get(), request);
  std::string bytes;
  worker::v1::ReadBlobResponse response;
  while (stream->Read(&response)) bytes += response.data();
  return ResultOf(stream->Finish(), bytes);
}

absl::Status ServerFixture::WriteBlob(worker::v1::WriteBlobRequest first, const std::string& id,
                                      const worker::v1::Lease& lease, const std::string& bytes) {
  *first.mutable_lease() = lease;
  first.set_worker_id(id);
  first.set_data(bytes);
  first.set_finish(true);
  first.set_digest(DigestOf(bytes));
  const auto context = ContextWith(kWorkerKey);
  worker::v1::WriteBlobResponse response;
  const auto stream = workers_->WriteBlob(context.get(), &response);
  stream->Write(first);
  stream->WritesDone();
  return FromGrpcStatus(stream->Finish());
}

worker::v1::SynchronizeRequest ServerFixture::DeltaReport(const std::string& id,
                                                          const worker::v1::Lease& lease) {
  worker::v1::SynchronizeRequest request = WorkerRequest(id);
  *request.mutable_finished()->mutable_lease() = lease;
  auto& delta = *request.mutable_finished()->mutable_delta();
  const auto add = [&](const char* path, const std::string& bytes) {
    auto& file = *delta.add_files();
    file.set_path(path);
    file.set_size_bytes(static_cast<int64_t>(bytes.size()));
    file.set_digest(DigestOf(bytes));
  };
  add("adapter/adapter_model.safetensors", kAdapterBytes);
  add("manifest.json", kManifestBytes);
  delta.set_manifest_digest(DigestOf(kManifestBytes));
  auto& state = *request.mutable_finished()->mutable_final_state();
  *state.mutable_lease() = lease;
  state.set_step(100);
  state.set_total_steps(100);
  state.set_trained_tokens(1000);
  delta.mutable_vector_use()->set_rows(40);
  delta.mutable_vector_use()->set_rows_under_vector(33);
  request.set_draining(true);
  return request;
}

absl::StatusOr<worker::v1::SynchronizeResponse> ServerFixture::FinishDelta(
    const std::string& id, const worker::v1::Lease& lease) {
  worker::v1::WriteBlobRequest kind;
  kind.set_delta_path("adapter/adapter_model.safetensors");
  EXPECT_OK(WriteBlob(kind, id, lease, kAdapterBytes));
  kind.set_delta_path("manifest.json");
  EXPECT_OK(WriteBlob(kind, id, lease, kManifestBytes));
  return Sync(DeltaReport(id, lease));
}

absl::StatusOr<worker::v1::SynchronizeResponse> ServerFixture::FinishGate(
    const std::string& id, const worker::v1::Work& work, bool passed) {
  worker::v1::WriteBlobRequest kind;
  kind.set_delta_path("adapter/adapter_model.safetensors");
  EXPECT_OK(WriteBlob(kind, id, work.lease(), kAdapterBytes));
  kind.set_delta_path("manifest.json");
  EXPECT_OK(WriteBlob(kind, id, work.lease(), kManifestBytes));
  worker::v1::SynchronizeRequest request = DeltaReport(id, work.lease());
  auto& report = *request.mutable_finished()->mutable_delta()->mutable_gate();
  report.set_gate_digest(work.fine_tune().gate().digest());
  report.set_verdict(passed ? admin::v1::GateReport::PASSED : admin::v1::GateReport::FAILED);
  if (!passed) report.add_failed_categories("a");
  report.add_scales()->add_prohibited()->set_rise(0.8125);
  return Sync(request);
}

std::string ServerFixture::Rows(int count) {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&rows, R"({"messages": [{"role": "user", "content": "question )", i,
                    R"("}, {"role": "assistant", "content": "answer )", i, "\"}]}\n");
  }
  return rows;
}

std::string ServerFixture::EverythingStored() {
  std::string all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
    absl::StrAppend(&all, entry.path().string(), "\n");
    if (entry.is_regular_file()) all += ReadFile(entry.path().string()).value_or("");
  }
  if (postgres_.has_value()) all += postgres_->EverythingStored();
  return all;
}

std::string ServerFixture::MetricsPage() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server_->metrics_port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string page;
  const std::string get = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
      write(fd, get.data(), get.size()) == static_cast<ssize_t>(get.size())) {
    char buffer[4096];
    for (ssize_t n = 1; n > 0;) {
      n = read(fd, buffer, sizeof(buffer));
      if (n > 0) page.append(buffer, static_cast<size_t>(n));
    }
  }
  close(fd);
  return page;
}

}  // namespace ballast::server::testing
