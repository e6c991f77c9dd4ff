// SPDX-License-Identifier: Apache-2.0
#include "server/api/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/version.h"
#include "server/api/admin_service.h"
#include "server/api/background_loop.h"
#include "server/api/base_model_service.h"
#include "server/api/call.h"
#include "server/api/dataset_service.h"
#include "server/api/dataset_validator.h"
#include "server/api/delta_service.h"
#include "server/api/fine_tuning_service.h"
#include "server/api/gate_service.h"
#include "server/api/held_calls.h"
#include "server/api/janitor.h"
#include "server/api/listen_address.h"
#include "server/api/safety_rows_service.h"
#include "server/api/sample_broker.h"
#include "server/api/sample_relay.h"
#include "server/api/sampling_service.h"
#include "server/api/screen_service.h"
#include "server/api/unnamed_blobs.h"
#include "server/api/usage_service.h"
#include "server/api/watch_hub.h"
#include "server/api/worker_service.h"
#include "server/core/last_events.h"
#include "server/core/live_servers.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"

namespace ballast::server {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);
// How often held calls are looked at where notices may be missed, and gauges are counted.
constexpr absl::Duration kLookPeriod = absl::Seconds(1);
constexpr absl::Duration kLongestUncounted = absl::Minutes(1);
constexpr absl::Duration kStreamIdle = absl::Seconds(60);
// A second after each: as long as it takes to find out that another server is gone.
constexpr int kMostJoins = 40;
// What a caller may send before it is read. gRPC would let that grow with the connection's speed,
// to tens of MiB of memory for each upload; this is enough for 40 MiB/s at 100 ms.
constexpr int kReadAheadBytes = 4 << 20;
// A message is at most a chunk with its names around it.
constexpr int kMaxMessageBytes = static_cast<int>(kMaxChunkBytes) + (64 << 10);

class RandomIds : public IdSource {
 public:
  std::string NewId() override { return RandomHex(128); }
  int64_t NewSeed() override {
    // 52 bits: exact in every language that reads the API's JSON as floating point.
    return static_cast<int64_t>(std::stoull(RandomHex(56), nullptr, 16) >> 4) + 1;
  }
};

}  // namespace

class Server::Impl : public ChangeListener, public NoticeReader {
 public:
  Impl(const ServerParts& parts, const ServerOptions& options)
      : parts_(parts),
        options_(options),
        servers_(parts.store, options.blobs_identity, std::string(Version())),
        api_{parts.authenticator, parts.clock, executor_, transfers_, idle_streams_, metrics_},
        serving_(parts.signer, options.allow_unprotected_base_models),
        jobs_(parts.store, ids_, *this, serving_, options_.quotas,
              options_.price_per_million_tokens),
        datasets_(parts.store, ids_, *this, options_.quotas),
        usage_(parts.store),
        models_(parts.store, serving_),
        vectors_(parts.store, *this, serving_),
        certification_(parts.store, *this, serving_),
        gates_(parts.store, *this),
        safety_rows_(parts.store, *this),
        screens_(parts.store, *this),
        withheld_(parts.store, *this, options.withheld_expiry),
        standings_(parts.store, *this, options_.quotas, options.withheld_budget),
        watches_({[this](const auto& jobs) { return LastEvents(parts_.store, jobs); },
                  [this](const auto& job) { return plane_->LiveProgress(job); }}),
        relay_(parts.store, broker_, parts.clock, parts.bulletin),
        validator_(datasets_, parts.blobs, parts.row_checks, parts.clock),
        janitor_(
            parts.store, parts.blobs, unnamed_,
            [this] { return servers_.IsSure(parts_.clock.Now()); }, [this] { SweepUploads(); }) {}

  absl::Status Start() {
    const bool tls = !options_.tls_certificate.empty();
    BALLAST_RETURN_IF_ERROR(CheckListenAddress(options_.listen_address, tls));
    std::error_code ignored;
    std::filesystem::remove_all(options_.scratch_dir, ignored);
    BALLAST_RETURN_IF_ERROR(MakeDirectories(options_.scratch_dir, 0700));
    BALLAST_RETURN_IF_ERROR(Join());
    ControlPlane::Options plane_options;
    plane_options.lease = options_.lease;
    plane_options.heartbeat = std::min(absl::Seconds(2), options_.lease / 3);
    plane_options.max_attempts = options_.max_attempts;
    plane_options.retry = options_.retry;
    plane_options.withheld_budget = options_.withheld_budget;
    BALLAST_ASSIGN_OR_RETURN(
        plane_, ControlPlane::Create(parts_.store, ids_, *this, serving_, options_.quotas,
                                     plane_options, parts_.clock.Now()));
    BALLAST_RETURN_IF_ERROR(WarnOfVectors());
    held_ = std::make_unique<HeldCalls>(*plane_, broker_, &relay_);
    MakeServices();
    if (options_.metrics_address != "off") {
      BALLAST_RETURN_IF_ERROR(metrics_.Serve(options_.metrics_address));
    }
    executor_.Start(options_.executor_threads);
    transfers_.Start(options_.transfer_threads);
    watches_.Start(options_.watch_threads);
    dispatcher_.Start([this] { held_->Dispatch(parts_.clock.Now()); }, absl::InfiniteDuration());
    relay_.Start();
    BALLAST_RETURN_IF_ERROR(Listen(tls));
    validator_.Start();
    validator_.Wake();
    janitor_.Start();
    janitor_.Wake();
    ticker_.Start([this] { Tick(); }, kTick);
    presence_.Start([this] { GiveSign(); }, kLookPeriod);
    if (parts_.bulletin != nullptr) parts_.bulletin->Start(*this);
    server_->GetHealthCheckService()->SetServingStatus(true);
    return absl::OkStatus();
  }

  void Stop(absl::Duration grace) {
    if (std::exchange(stopped_, true)) return;
    if (parts_.bulletin != nullptr) parts_.bulletin->Stop();
    if (server_ != nullptr) {
      server_->GetHealthCheckService()->SetServingStatus(false);
      held_->Drain();
      watches_.Drain();
      dataset_service_->Drain();
      relay_.Drain();
      broker_.EndAll();
      server_->Shutdown(std::chrono::system_clock::now() +
                        std::chrono::milliseconds(absl::ToInt64Milliseconds(grace)));
      server_->Wait();
    }
    relay_.Stop();
    validator_.Stop();
    janitor_.Stop();
    ticker_.Stop();
    presence_.Stop();
    dispatcher_.Stop();
    watches_.Stop();
    transfers_.Stop();
    executor_.Stop();
    // The others need not wait until it is taken for gone.
    const absl::Status left = servers_.Leave();
    if (!left.ok()) spdlog::warn("signing off at the other servers failed: {}", ErrorReason(left));
  }

  void Tick() {
    absl::MutexLock lock(&tick_mutex_);
    const absl::Time now = parts_.clock.Now();
    const absl::Status status = plane_->Enter(now);
    if (!status.ok())
      spdlog::error("ending leases failed, it is tried again: {}", ErrorReason(status));
    watches_.Tick(now);
    held_->Sweep(now);
    if (broker_.Sweep(now)) held_->Dispatch(now);
    if (relay_.Enter(now, held_->count() > 0)) held_->Dispatch(now);
    idle_streams_.Sweep(now, kStreamIdle);
    if (now >= next_look_) {
      next_look_ = now + kLookPeriod;
      const absl::Status expired = withheld_.Enter(now);
      if (!expired.ok()) {
        spdlog::error("expiring withheld deltas failed, it is tried again: {}",
                      ErrorReason(expired));
      }
      // Where a notice was missed.
      if (parts_.store.shared() && held_->count() > 0) DispatchSoon();
      UpdateGauges(now);
    }
  }

  void Settle() {
    GiveSign();
    validator_.CheckAll();
    janitor_.Clean();
    Tick();
  }

  void JobChanged(const std::string& tenant, const std::string& id) override {
    const std::string job = JobName(tenant, id);
    watches_.Changed(job);
    Post({Notice::Kind::kJobChanged, job});
  }
  // Other servers learn of it from its worker's signs.
  void JobMoved(const std::string& tenant, const std::string& id) override {
    watches_.Moved(JobName(tenant, id));
  }
  void WorkAdded() override {
    DispatchSoon();
    Post({Notice::Kind::kWorkAdded, ""});
  }
  void DatasetUploaded() override { validator_.Wake(); }
  void GarbageAdded() override { janitor_.Wake(); }

  void Heard(const Notice& notice) override {
    switch (notice.kind) {
      case Notice::Kind::kJobChanged:
        watches_.Changed(notice.name);
        return;
      case Notice::Kind::kAnything:
        watches_.Missed();
        [[fallthrough]];
      case Notice::Kind::kSampleOffered:
        relay_.Heard();
        [[fallthrough]];
      case Notice::Kind::kWorkAdded:
        DispatchSoon();
    }
  }

  const std::string& address() const { return address_; }
  int metrics_port() const { return metrics_.port(); }
  absl::Status fault() const {
    absl::MutexLock lock(&fault_mutex_);
    return fault_;
  }

 private:
  // Waits for a server that keeps its blobs elsewhere, until it is known to be gone.
  absl::Status Join() {
    absl::Status joined = servers_.Join(parts_.clock.Now());
    for (int waited = 0; ErrorReason(joined) == "BLOB_STORE_DIFFERS" && waited < kMostJoins;
         ++waited) {
      if (waited == 0) spdlog::warn("{}; waiting for it to go", std::string(joined.message()));
      absl::SleepFor(absl::Seconds(1));
      joined = servers_.Join(parts_.clock.Now());
    }
    return joined;
  }
  void GiveSign() {
    const absl::Status given = servers_.Enter(parts_.clock.Now());
    if (ErrorReason(given) == "SERVER_ID_TAKEN") {
      absl::MutexLock lock(&fault_mutex_);
      fault_ = given;
    } else if (!given.ok()) {
      spdlog::error("no sign of life could be given, it is tried again: {}", ErrorReason(given));
    }
    dataset_service_->EndLeftUploads();
  }
  // Not where signs of life are given: it goes through records of all tenants.
  void SweepUploads() {
    const absl::Status swept = dataset_service_->SweepDirectUploads(parts_.clock.Now());
    if (!swept.ok()) {
      spdlog::error("collecting what links led to failed, it is tried again: {}",
                    ErrorReason(swept));
    }
  }

  // Not on threads that answer heartbeats: it waits for the one before.
  void DispatchSoon() { dispatcher_.Wake(); }
  void Post(const Notice& notice) {
    if (parts_.bulletin != nullptr) parts_.bulletin->Post(notice);
  }

  // Vectors that an operator takes to serve and that do not.
  absl::Status WarnOfVectors() {
    return parts_.store.Read([&](Transaction& tx) {
      return ForEachInState<VectorRecord>(
          tx, admin::v1::Vector::ACTIVE, [&](const VectorRecord& record) -> absl::StatusOr<bool> {
            BALLAST_ASSIGN_OR_RETURN(const auto vector, ToVector(tx, record, serving_));
            if (!vector.serving_problem().empty()) {
              spdlog::error("{} is ACTIVE and serves no job: {}", vector.name(),
                            vector.serving_problem());
            }
            return true;
          });
    });
  }

  void MakeServices() {
    base_model_service_ = std::make_unique<BaseModelService>(api_, models_);
    dataset_service_ = std::make_unique<DatasetService>(
        api_, datasets_, parts_.blobs, unnamed_,
        DatasetService::Limits{options_.max_dataset_bytes, options_.upload_part_bytes});
    fine_tuning_service_ = std::make_unique<FineTuningService>(api_, jobs_, *plane_, watches_);
    delta_service_ = std::make_unique<DeltaService>(api_, jobs_, parts_.blobs);
    sampling_service_ =
        std::make_unique<SamplingService>(api_, broker_, models_, jobs_, ids_, *this);
    usage_service_ = std::make_unique<UsageService>(api_, usage_);
    worker_service_ = std::make_unique<WorkerService>(api_, *plane_, *held_, broker_, parts_.blobs,
                                                      options_.max_worker_blob_bytes);
    admin_service_ = std::make_unique<AdminService>(
        api_, AdminService::Parts{models_, vectors_, certification_, *plane_, parts_.store,
                                  parts_.blobs, unnamed_, parts_.row_checks, ids_,
                                  options_.scratch_dir, options_.max_dataset_bytes});
    gate_service_ = std::make_unique<GateService>(
        api_, GateService::Parts{gates_, withheld_, standings_, parts_.blobs, unnamed_, ids_});
    safety_rows_service_ = std::make_unique<SafetyRowsService>(
        api_, SafetyRowsService::Parts{models_, safety_rows_, parts_.blobs, unnamed_,
                                       parts_.row_checks, ids_});
    screen_service_ = std::make_unique<ScreenService>(
        api_,
        ScreenService::Parts{models_, screens_, parts_.blobs, unnamed_, parts_.row_checks, ids_});
  }

  absl::Status Listen(bool tls) {
    ListenAddress wanted;
    BALLAST_RETURN_IF_ERROR(ParseListenAddress(options_.listen_address, &wanted));
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
    if (tls) {
      grpc::SslServerCredentialsOptions ssl;
      ssl.pem_key_cert_pairs.push_back({options_.tls_private_key, options_.tls_certificate});
      credentials = grpc::SslServerCredentials(ssl);
    }
    builder.AddListeningPort(options_.listen_address, credentials, &port);
    // Two servers on one port would share its calls at random.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 1000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kReadAheadBytes);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    for (grpc::Service* service : std::initializer_list<grpc::Service*>{
             base_model_service_.get(), dataset_service_.get(), fine_tuning_service_.get(),
             delta_service_.get(), sampling_service_.get(), worker_service_.get(),
             admin_service_.get(), gate_service_.get(), safety_rows_service_.get(),
             screen_service_.get(), usage_service_.get()}) {
      builder.RegisterService(service);
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "PORT_IN_USE",
          absl::StrCat("cannot listen on ", options_.listen_address,
                       tls ? "; the port is taken, or certificate and key are not valid"
                           : "; the port is taken or the address is not of this machine",
                       ". Change listen_address or stop the other program"),
          {{"address", options_.listen_address}});
    }
    const bool v6 = wanted.host.find(':') != std::string::npos;
    address_ = absl::StrCat(v6 ? "[" : "", wanted.host, v6 ? "]" : "", ":", port);
    return absl::OkStatus();
  }

  // Every record is counted: the store is kept busy with it for a fiftieth of the time at most.
  void CountRecords() ABSL_EXCLUSIVE_LOCKS_REQUIRED(tick_mutex_) {
    const absl::Time begin = parts_.clock.Now();
    if (begin < next_count_ && next_count_ - begin <= kLongestUncounted) return;
    const absl::Status status = parts_.store.Read([&](Transaction& tx) -> absl::Status {
      using v1::FineTuningJob;
      for (int state = FineTuningJob::SCREENING; state <= FineTuningJob::FAILED; ++state) {
        BALLAST_ASSIGN_OR_RETURN(const int64_t count, tx.CountState(Kind::kJob, state));
        metrics_.SetJobs(FineTuningJob::State_Name(state), count);
      }
      using admin::v1::Vector;
      for (int state = Vector::DRAFT; state <= Vector::REJECTED; ++state) {
        BALLAST_ASSIGN_OR_RETURN(const int64_t count, tx.CountState(Kind::kVector, state));
        metrics_.SetVectors(Vector::State_Name(state), count);
      }
      BALLAST_ASSIGN_OR_RETURN(const int64_t validating,
                               tx.CountState(Kind::kDataset, v1::Dataset::VALIDATING));
      metrics_.SetValidationQueue(validating);
      return absl::OkStatus();
    });
    if (!status.ok()) spdlog::warn("counting for the metrics failed: {}", ErrorReason(status));
    next_count_ = begin + std::min(50 * (parts_.clock.Now() - begin), kLongestUncounted);
  }

  void UpdateGauges(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tick_mutex_) {
    CountRecords();
    metrics_.SetLeasesLost(plane_->LeasesLost());
    metrics_.SetWorkers(static_cast<int64_t>(plane_->ListWorkers(now).size()));
    metrics_.SetHeldCalls(held_->count());
    metrics_.SetWatchers(watches_.count());
  }

  const ServerParts parts_;
  const ServerOptions options_;
  LiveServers servers_;
  RandomIds ids_;
  Metrics metrics_;
  IdleStreams idle_streams_;
  Executor executor_, transfers_;
  const ApiContext api_;
  const ServingVectors serving_;
  JobCatalog jobs_;
  DatasetCatalog datasets_;
  UsageCatalog usage_;
  BaseModelCatalog models_;
  VectorCatalog vectors_;
  VectorCertification certification_;
  GateCatalog gates_;
  SafetyRowsCatalog safety_rows_;
  ScreenCatalog screens_;
  WithheldJobs withheld_;
  TenantStandings standings_;
  WatchHub watches_;
  SampleBroker broker_;
  SampleRelay relay_;
  DatasetValidator validator_;
  UnnamedBlobs unnamed_;
  Janitor janitor_;
  std::unique_ptr<ControlPlane> plane_;
  std::unique_ptr<HeldCalls> held_;
  std::unique_ptr<BaseModelService> base_model_service_;
  std::unique_ptr<DatasetService> dataset_service_;
  std::unique_ptr<FineTuningService> fine_tuning_service_;
  std::unique_ptr<DeltaService> delta_service_;
  std::unique_ptr<UsageService> usage_service_;
  std::unique_ptr<SamplingService> sampling_service_;
  std::unique_ptr<WorkerService> worker_service_;
  std::unique_ptr<AdminService> admin_service_;
  std::unique_ptr<GateService> gate_service_;
  std::unique_ptr<SafetyRowsService> safety_rows_service_;
  std::unique_ptr<ScreenService> screen_service_;
  std::unique_ptr<grpc::Server> server_;
  BackgroundLoop dispatcher_, ticker_, presence_;
  mutable absl::Mutex fault_mutex_;
  absl::Status fault_ ABSL_GUARDED_BY(fault_mutex_);
  absl::Mutex tick_mutex_;
  absl::Time next_look_ ABSL_GUARDED_BY(tick_mutex_) = absl::InfinitePast();
  absl::Time next_count_ ABSL_GUARDED_BY(tick_mutex_) = absl::InfinitePast();
  std::string address_;
  bool stopped_ = false;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() { Stop(absl::Seconds(1)); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerParts& parts,
                                                      const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(parts, options);
  const absl::Status status = impl->Start();
  if (!status.ok()) {
    impl->Stop(absl::ZeroDuration());
    return status;
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

const std::string& Server::address() const { return impl_->address(); }
int Server::metrics_port() const { return impl_->metrics_port(); }
absl::Status Server::Fault() const { return impl_->fault(); }
void Server::Stop(absl::Duration grace) { impl_->Stop(grace); }
void Server::TickForTest() { impl_->Tick(); }
void Server::SettleForTest() { impl_->Settle(); }

}  // namespace ballast::server
