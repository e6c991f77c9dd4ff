// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/world.h"

#include <grpcpp/create_channel.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ballast/config/v1/config.pb.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "common/text/tokenizer.h"
#include "server/api/text_row_checks.h"
#include "server/auth/api_key_authenticator.h"
#include "server/blob/local_blob_store.h"
#include "server/store/sqlite_job_store.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::testing {
namespace {

constexpr char kOperatorKey[] = "operator-key-for-tests";
constexpr char kTenantKey[] = "tenant-key-for-tests";
constexpr char kWorkerKey[] = "worker-key-for-tests";
constexpr absl::Duration kLongest = absl::Seconds(60);

// Ends the test program where going on makes no sense.
void Check(const absl::Status& status, std::string_view doing) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", std::string(doing).c_str(), status.ToString().c_str());
  std::abort();
}

void Check(const grpc::Status& status, std::string_view doing) {
  Check(FromGrpcStatus(status), doing);
}

template <typename T>
T Get(absl::StatusOr<T> result, std::string_view doing) {
  Check(result.status(), doing);
  return *std::move(result);
}

void Authorise(grpc::ClientContext& context, const char* key) {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", key));
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
}

// Polls: what is waited for happens on threads of the server that tell nobody.
void WaitUntil(std::string_view what, const std::function<bool()>& condition) {
  const absl::Time until = absl::Now() + kLongest;
  while (!condition()) {
    if (absl::Now() > until) Check(absl::DeadlineExceededError("not in time"), what);
    absl::SleepFor(absl::Milliseconds(5));
  }
}

std::string Rows(int count, const std::string& question, const std::string& answer) {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&rows, R"({"messages": [{"role": "user", "content": ")", question, " ", i,
                    R"("}, {"role": "assistant", "content": ")", answer, " ", i, "\"}]}\n");
  }
  return rows;
}

std::string TestData(const std::string& path) {
  return absl::StrCat(std::getenv("BALLAST_SOURCE_DIR"), "/tests/testdata/", path);
}

}  // namespace

WorkerInProcess::WorkerInProcess(const std::string& address, const std::string& id,
                                 const std::string& cache_dir, char vault_key, int checkpoint_steps)
    : vault_(std::make_unique<worker::vault::FileKeyProvider>(
          worker::SecretBuffer::CopyOf(std::string(32, vault_key)))) {
  worker::agent::WorkerClientOptions client;
  client.server_address = address;
  client.api_key = kWorkerKey;
  client.worker_id = id;
  client.first_backoff = absl::Milliseconds(10);
  client.longest_backoff = absl::Milliseconds(50);
  client_ = Get(worker::agent::WorkerClient::Create(client), "connect a worker");
  worker::agent::AgentOptions options;
  options.version = "test";
  options.cache_dir = cache_dir;
  options.checkpoint_steps = checkpoint_steps;
  options.stop_patience = absl::Milliseconds(200);
  options.first_pause = absl::Milliseconds(1);
  options.longest_pause = absl::Milliseconds(2);
  agent_ = std::make_unique<worker::agent::Agent>(
      options, *client_, vault_,
      [this](const std::string& folder) {
        return worker::testing::LoadFakeEngine(folder, engine_);
      },
      [](const std::string& folder) { return text::ModelText::FromFolder(folder); }, clock_);
  Check(agent_->Start(), "start a worker");
}

WorkerInProcess::~WorkerInProcess() { Stop(); }

void WorkerInProcess::Stop() { agent_->Stop(); }

World::World() : folder_(absl::StrCat(::testing::TempDir(), "/world_", RandomHex(64))) {
  Check(MakeDirectories(folder_), "make a folder");
  store_ = Get(server::SqliteJobStore::Open(folder_ + "/server.db"), "open the store");
  blobs_ = Get(server::LocalBlobStore::OpenRoot(folder_ + "/blobs"), "open the blobs");
  config::v1::ServerConfig config;
  const auto add = [&](const char* key, config::v1::ApiKey::Role role, const char* tenant) {
    auto* entry = config.add_api_keys();
    entry->set_digest(DigestOf(key));
    entry->set_role(role);
    entry->set_tenant(tenant);
  };
  add(kOperatorKey, config::v1::ApiKey::OPERATOR, "");
  add(kTenantKey, config::v1::ApiKey::TENANT, "acme");
  add(kWorkerKey, config::v1::ApiKey::WORKER, "");
  authenticator_ = Get(server::ApiKeyAuthenticator::Create(config.api_keys()), "read the keys");
  row_checks_ = std::make_unique<server::TextRowChecks>(*blobs_, folder_ + "/texts");
  server::ServerOptions options;
  options.listen_address = "127.0.0.1:0";
  options.metrics_address = "off";
  options.scratch_dir = folder_ + "/scratch";
  options.lease = absl::Seconds(30);
  options.retry = absl::ZeroDuration();  // the clock stands still
  server_ =
      Get(server::Server::Start({*store_, *blobs_, *authenticator_, *row_checks_, clock_}, options),
          "start the server");
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  admin_ = admin::v1::AdminService::NewStub(channel);
  gates_ = admin::v1::GateService::NewStub(channel);
  datasets_ = v1::DatasetService::NewStub(channel);
  jobs_ = v1::FineTuningService::NewStub(channel);
  deltas_ = v1::DeltaService::NewStub(channel);
  sampling_ = v1::SamplingService::NewStub(channel);
  ImportBase();
  dataset_ = UploadDataset();
}

World::~World() {
  server_->Stop(absl::Seconds(1));
  server_.reset();
  std::filesystem::remove_all(folder_);
}

void World::Pass(absl::Duration duration) {
  clock_.Advance(duration);
  server_->TickForTest();
}

std::unique_ptr<WorkerInProcess> World::StartWorker(const std::string& id, char vault_key,
                                                    int checkpoint_steps,
                                                    const std::string& address) {
  return std::make_unique<WorkerInProcess>(address.empty() ? server_->address() : address, id,
                                           folder_ + "/cache", vault_key, checkpoint_steps);
}

void World::ImportBase() {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  v1::BaseModel model;
  const auto writer = admin_->ImportBaseModel(&context, &model);
  admin::v1::ImportBaseModelRequest request;
  request.mutable_options()->set_base_model_id("tiny");
  writer->Write(request);
  for (const char* path :
       {"tiny_llama/config.json", "tiny_llama/model.safetensors", "tiny_tokenizer/tokenizer.json",
        "tiny_tokenizer/tokenizer_config.json", "tiny_tokenizer/generation_config.json"}) {
    const std::string bytes = Get(ReadFile(TestData(path)), path);
    request.Clear();
    request.mutable_file_start()->set_file_name(std::filesystem::path(path).filename());
    request.mutable_file_start()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    writer->Write(request);
    request.set_data(bytes);
    writer->Write(request);
  }
  writer->WritesDone();
  Check(writer->Finish(), "import the base model");
}

std::string World::UploadDataset() {
  v1::Dataset dataset;
  {
    grpc::ClientContext context;
    Authorise(context, kTenantKey);
    v1::CreateDatasetRequest request;
    request.set_parent(kTenant);
    request.mutable_dataset()->set_base_model(kBase);
    Check(datasets_->CreateDataset(&context, request, &dataset), "create a data set");
  }
  {
    grpc::ClientContext context;
    Authorise(context, kTenantKey);
    v1::WriteDatasetResponse response;
    const auto writer = datasets_->WriteDataset(&context, &response);
    v1::WriteDatasetRequest request;
    request.set_name(dataset.name());
    request.set_data(Rows(16, "what is the time", "it is"));
    request.set_finish(true);
    request.set_digest(DigestOf(request.data()));
    writer->Write(request);
    writer->WritesDone();
    Check(writer->Finish(), "upload the data set");
  }
  WaitUntil("the data set to be checked", [&] {
    grpc::ClientContext context;
    Authorise(context, kTenantKey);
    v1::GetDatasetRequest request;
    request.set_name(dataset.name());
    Check(datasets_->GetDataset(&context, request, &dataset), "get the data set");
    return dataset.state() == v1::Dataset::READY;
  });
  return dataset.name();
}

admin::v1::Vector World::TrainVector() {
  admin::v1::Vector vector;
  {
    grpc::ClientContext context;
    Authorise(context, kOperatorKey);
    const auto writer = admin_->TrainVector(&context, &vector);
    admin::v1::TrainVectorRequest request;
    request.mutable_options()->set_base_model(kBase);
    request.mutable_options()->set_epochs(2);
    writer->Write(request);
    request.set_prohibited_data(Rows(100, "please do", "content withheld"));
    writer->Write(request);
    request.set_benign_data(Rows(20, "how are you", "fine"));
    writer->Write(request);
    writer->WritesDone();
    Check(writer->Finish(), "ask for a vector");
  }
  WaitUntil("the vector to be trained", [&] {
    vector = GetVector(vector.name());
    return vector.state() == admin::v1::Vector::CERTIFYING;
  });
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::ActivateVectorRequest request;
  request.set_name(vector.name());
  request.set_reason("for the integration tests");
  Check(admin_->ActivateVector(&context, request, &vector), "activate the vector");
  return vector;
}

admin::v1::Vector World::GetVector(const std::string& name) {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::GetVectorRequest request;
  request.set_name(name);
  admin::v1::Vector vector;
  Check(admin_->GetVector(&context, request, &vector), "get the vector");
  return vector;
}

admin::v1::Vector World::RetireVector(const std::string& name) {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::RetireVectorRequest request;
  request.set_name(name);
  admin::v1::Vector vector;
  Check(admin_->RetireVector(&context, request, &vector), "retire the vector");
  return vector;
}

void World::CorruptSealedVectors() {
  const auto corrupt = [&](const std::filesystem::path& path) {
    const absl::StatusOr<std::string> read = ReadFile(path);
    if (!read.ok() || read->substr(0, 7) != "BALLSTV") return 0;
    std::string bytes = *read;
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    Check(WriteFileAtomically(path, bytes, 0600), "write a blob");
    return 1;
  };
  // The server may be deleting the rows of the vector: the walk begins again then, until a vector
  // was found.
  std::error_code error = std::make_error_code(std::errc::no_such_file_or_directory);
  int count = 0;
  while (error && count == 0) {
    std::filesystem::recursive_directory_iterator at(folder_ + "/blobs", error);
    for (; !error && at != std::filesystem::recursive_directory_iterator(); at.increment(error)) {
      count += corrupt(at->path());
    }
  }
  if (count == 0) Check(absl::NotFoundError("there is none"), "corrupt a sealed vector");
}

admin::v1::Gate World::SetGate() {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::SetGateRequest request;
  request.set_name(absl::StrCat(kBase, "/gate"));
  request.mutable_limits()->add_deciding_scales(1);
  request.mutable_limits()->set_reply_tokens(64);
  std::string& lines = *request.mutable_gate_set();
  for (int i = 0; i < 36; ++i) {
    absl::StrAppend(&lines, R"({"prohibited": "harbour rule )", i, R"(", "category": "rules"})",
                    "\n", R"({"look_alike": "kill process )", i, "\"}\n");
  }
  lines += R"({"refusal_phrase": "harbour rule"})";
  admin::v1::Gate gate;
  Check(gates_->SetGate(&context, request, &gate), "set a gate");
  return gate;
}

absl::StatusOr<admin::v1::JobGate> World::GateReport(const std::string& job) {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::GetGateReportRequest request;
  request.set_name(job);
  admin::v1::JobGate gate;
  const absl::Status status = FromGrpcStatus(gates_->GetGateReport(&context, request, &gate));
  if (!status.ok()) return status;
  return gate;
}

absl::StatusOr<admin::v1::JobGate> World::ReleaseJob(const std::string& job) {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::ReleaseJobRequest request;
  request.set_name(job);
  request.set_reason("a false alarm");
  admin::v1::JobGate gate;
  const absl::Status status = FromGrpcStatus(gates_->ReleaseJob(&context, request, &gate));
  if (!status.ok()) return status;
  return gate;
}

absl::StatusOr<admin::v1::JobGate> World::RefuseJob(const std::string& job) {
  grpc::ClientContext context;
  Authorise(context, kOperatorKey);
  admin::v1::RefuseJobRequest request;
  request.set_name(job);
  request.set_reason("it is what it seems");
  admin::v1::JobGate gate;
  const absl::Status status = FromGrpcStatus(gates_->RefuseJob(&context, request, &gate));
  if (!status.ok()) return status;
  return gate;
}

v1::FineTuningJob World::CreateJob() {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::CreateFineTuningJobRequest request;
  request.set_parent(kTenant);
  v1::FineTuningJob* job = request.mutable_fine_tuning_job();
  job->set_base_model(kBase);
  job->set_training_dataset(dataset_);
  job->mutable_hyperparameters()->set_epochs(4);
  job->mutable_hyperparameters()->set_batch_rows(4);
  job->mutable_hyperparameters()->set_lora_rank(2);
  v1::FineTuningJob created;
  Check(jobs_->CreateFineTuningJob(&context, request, &created), "create a job");
  return created;
}

v1::FineTuningJob World::GetJob(const std::string& name) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::GetFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  Check(jobs_->GetFineTuningJob(&context, request, &job), "get a job");
  return job;
}

v1::FineTuningJob World::CancelJob(const std::string& name) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::CancelFineTuningJobRequest request;
  request.set_name(name);
  v1::FineTuningJob job;
  Check(jobs_->CancelFineTuningJob(&context, request, &job), "cancel a job");
  return job;
}

std::vector<v1::JobEvent> World::Events(const std::string& job) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::ListFineTuningJobEventsRequest request;
  request.set_parent(job);
  v1::ListFineTuningJobEventsResponse response;
  Check(jobs_->ListFineTuningJobEvents(&context, request, &response), "list events");
  return {response.events().begin(), response.events().end()};
}

v1::FineTuningJob World::WaitForState(const std::string& job, v1::FineTuningJob::State state) {
  return WaitFor(job, [&](const v1::FineTuningJob& now) { return now.state() == state; });
}

v1::FineTuningJob World::WaitFor(const std::string& name,
                                 const std::function<bool(const v1::FineTuningJob&)>& condition) {
  v1::FineTuningJob job;
  WaitUntil("a job to change", [&] {
    job = GetJob(name);
    return condition(job);
  });
  return job;
}

v1::DeltaManifest World::GetManifest(const std::string& delta) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::GetDeltaManifestRequest request;
  request.set_name(delta);
  v1::DeltaManifest manifest;
  Check(deltas_->GetDeltaManifest(&context, request, &manifest), "get a manifest");
  return manifest;
}

std::string World::ReadDelta(const std::string& delta, const std::string& path) {
  std::string bytes;
  Check(TryReadDelta(delta, path, &bytes), "read a delta");
  return bytes;
}

absl::Status World::TryReadDelta(const std::string& delta, const std::string& path,
                                 std::string* bytes) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::ReadDeltaRequest request;
  request.set_name(delta);
  request.set_path(path);
  const auto reader = deltas_->ReadDelta(&context, request);
  v1::ReadDeltaResponse piece;
  while (reader->Read(&piece)) *bytes += piece.data();
  return FromGrpcStatus(reader->Finish());
}

World::Reply World::Sample(const std::string& prompt, const std::string& delta) {
  grpc::ClientContext context;
  Authorise(context, kTenantKey);
  v1::SampleRequest request;
  request.set_parent(kTenant);
  if (delta.empty()) {
    request.set_base_model(kBase);
  } else {
    request.set_delta(delta);
  }
  auto* message = request.add_messages();
  message->set_role("user");
  message->set_content(prompt);
  const auto reader = sampling_->Sample(&context, request);
  Reply reply;
  v1::SampleResponse piece;
  while (reader->Read(&piece)) {
    reply.text += piece.text();
    if (!piece.finish_reason().empty()) reply.finish_reason = piece.finish_reason();
  }
  reply.status = FromGrpcStatus(reader->Finish());
  return reply;
}

}  // namespace ballast::testing
