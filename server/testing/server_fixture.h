// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_SERVER_FIXTURE_H_
#define BALLAST_SERVER_TESTING_SERVER_FIXTURE_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/admin_service.grpc.pb.h"
#include "ballast/admin/v1/gate_service.grpc.pb.h"
#include "ballast/admin/v1/safety_rows.grpc.pb.h"
#include "ballast/admin/v1/screen.grpc.pb.h"
#include "ballast/v1/base_model_service.grpc.pb.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/delta_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/v1/sampling_service.grpc.pb.h"
#include "ballast/v1/usage_service.grpc.pb.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "common/base/testing/fake_clock.h"
#include "gtest/gtest.h"
#include "server/api/server.h"
#include "server/api/text_row_checks.h"
#include "server/auth/api_key_authenticator.h"
#include "server/blob/local_blob_store.h"
#include "server/store/sqlite_job_store.h"
#include "server/testing/postgres_test_schema.h"
#include "server/testing/suite_results.h"
#include "server/testing/temp_dir.h"

namespace ballast::server::testing {

// Keys that the fixture's server knows.
inline constexpr char kTenantKey[] = "key-of-acme";
inline constexpr char kOtherKey[] = "key-of-other";
inline constexpr char kOperatorKey[] = "key-of-the-operator";
inline constexpr char kWorkerKey[] = "key-of-a-worker";

// A call's context with `key`, ending after 30 s.
std::unique_ptr<grpc::ClientContext> ContextWith(const std::string& key);

// A whole server on loopback over SQLite and a local folder, with the repository's tiny model, a
// clock that stands still, and a worker that a test plays by hand.
class ServerFixture : public ::testing::Test {
 protected:
  ServerFixture() { options_.metrics_address = "off"; }
  void SetUp() override { StartServer(); }
  void TearDown() override { StopServer(); }

  // What the server is built of besides the fixture's own; a test may put something before them.
  virtual JobStore& ServerStore() { return *store_; }
  virtual BlobStore& ServerBlobs() { return *blobs_; }
  virtual RowChecks& ServerRowChecks() { return *row_checks_; }

  void StartServer();
  void StopServer();
  // As after a crash: everything is built again on the same folder.
  void Restart() {
    StopServer();
    StartServer();
  }
  // Time passes, in which the server looks at the clock as often as it does.
  void LetLeasesEnd();

  // Calls, with the key of who usually makes them.
  absl::StatusOr<v1::BaseModel> ImportTiny(const std::string& id = "tiny");
  absl::StatusOr<v1::BaseModel> Import(
      const std::string& id, const std::vector<std::pair<std::string, std::string>>& files);
  // The tiny model's files, by name.
  static std::vector<std::pair<std::string, std::string>> TinyFiles();
  absl::StatusOr<admin::v1::Vector> TrainVector(const std::string& prohibited,
                                                const std::string& benign);
  // What one call sends, in this order.
  struct VectorData {
    admin::v1::VectorOptions options;  // of the tiny model
    std::string prohibited, benign, topics;
  };
  absl::StatusOr<admin::v1::Vector> TrainVectorWith(const VectorData& data);
  // Trains a vector of the tiny model by the hand-played worker; it is CERTIFYING then.
  absl::StatusOr<admin::v1::Vector> MakeVector();
  absl::StatusOr<admin::v1::Vector> Activate(const std::string& name,
                                             const std::string& reason = "for these tests");
  absl::StatusOr<admin::v1::SignedCertificate> Certify(const admin::v1::SuiteResult& result,
                                                       bool validate_only = false);
  // Imports the tiny model and makes a vector for it that is ACTIVE without a certificate.
  void MakeReady();

  // Sets a gate for the tiny model: 36 prohibited prompts of the category "a", 36 look-alikes.
  absl::StatusOr<admin::v1::Gate> SetGate(const std::string& gate_set = GateSet(),
                                          const std::string& key = kOperatorKey);
  static std::string GateSet();

  absl::StatusOr<v1::Dataset> CreateDataset(const std::string& key = kTenantKey,
                                            const std::string& tenant = "acme");
  // Sends `bytes` in pieces from `offset`; finishes with `digest` unless it is empty.
  absl::StatusOr<v1::WriteDatasetResponse> Write(const std::string& name, int64_t offset,
                                                 const std::string& bytes,
                                                 const std::string& digest,
                                                 const std::string& key = kTenantKey);
  v1::UploadStatus UploadStatusOf(const std::string& name);
  absl::StatusOr<v1::Dataset> GetDataset(const std::string& name,
                                         const std::string& key = kTenantKey);
  // A READY data set of `rows` rows.
  std::string UploadRows(int rows, const std::string& key = kTenantKey,
                         const std::string& tenant = "acme");
  absl::StatusOr<v1::FineTuningJob> CreateJob(const std::string& dataset,
                                              const std::string& key = kTenantKey,
                                              const std::string& tenant = "acme");
  absl::StatusOr<v1::FineTuningJob> GetJob(const std::string& name,
                                           const std::string& key = kTenantKey);
  absl::StatusOr<v1::FineTuningJob> Cancel(const std::string& name);
  absl::StatusOr<v1::FineTuningJob> Pause(const std::string& name);
  absl::StatusOr<v1::FineTuningJob> Resume(const std::string& name);
  absl::StatusOr<std::string> ReadDelta(const std::string& name, const std::string& path,
                                        int64_t offset = 0, int64_t limit = 0,
                                        const std::string& key = kTenantKey);

  // The worker.
  static worker::v1::SynchronizeRequest WorkerRequest(const std::string& id);
  absl::StatusOr<worker::v1::SynchronizeResponse> Sync(
      const worker::v1::SynchronizeRequest& request);
  absl::StatusOr<worker::v1::SynchronizeResponse> Idle(const std::string& id);
  absl::StatusOr<worker::v1::SynchronizeResponse> Busy(const std::string& id,
                                                       const worker::v1::Lease& lease,
                                                       int64_t step);
  absl::StatusOr<std::string> ReadBlob(const std::string& id, const worker::v1::Lease& lease,
                                       const std::string& blob);
  // `kind` sets the kind on the first message.
  absl::Status WriteBlob(worker::v1::WriteBlobRequest first, const std::string& id,
                         const worker::v1::Lease& lease, const std::string& bytes);
  // Writes a small delta and reports it.
  absl::StatusOr<worker::v1::SynchronizeResponse> FinishDelta(const std::string& id,
                                                              const worker::v1::Lease& lease);
  // The same for work with a gate, which the delta passes or not.
  absl::StatusOr<worker::v1::SynchronizeResponse> FinishGate(const std::string& id,
                                                             const worker::v1::Work& work,
                                                             bool passed);
  static worker::v1::SynchronizeRequest DeltaReport(const std::string& id,
                                                    const worker::v1::Lease& lease);

  static std::string Rows(int count);
  static constexpr char kAdapterBytes[] = "the adapter";
  static constexpr char kManifestBytes[] = "{\"the\": \"manifest\"}";

  // Everything below the data folder: names and bytes.
  std::string EverythingStored();
  std::string MetricsPage();

  TempDir folder_;
  ballast::testing::FakeClock clock_;
  // Metrics are off unless a test switches them on before SetUp: their web server takes seconds to
  // stop.
  ServerOptions options_;
  // Set where the tests run on PostgreSQL.
  std::optional<PostgresTestSchema> postgres_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<LocalBlobStore> blobs_;
  std::unique_ptr<ApiKeyAuthenticator> authenticator_;
  std::unique_ptr<TextRowChecks> row_checks_;
  KeySigner signer_;  // the same over restarts
  const Signer* server_signer_ = &signer_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<admin::v1::AdminService::Stub> admin_;
  std::unique_ptr<admin::v1::GateService::Stub> gates_;
  std::unique_ptr<admin::v1::SafetyRowsService::Stub> safety_rows_;
  std::unique_ptr<admin::v1::ScreenService::Stub> screens_;
  std::unique_ptr<v1::BaseModelService::Stub> models_;
  std::unique_ptr<v1::DatasetService::Stub> datasets_;
  std::unique_ptr<v1::FineTuningService::Stub> jobs_;
  std::unique_ptr<v1::DeltaService::Stub> deltas_;
  std::unique_ptr<v1::UsageService::Stub> usage_;
  std::unique_ptr<v1::SamplingService::Stub> sampling_;
  std::unique_ptr<worker::v1::WorkerService::Stub> workers_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_SERVER_FIXTURE_H_
