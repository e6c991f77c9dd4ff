// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_TESTS_INTEGRATION_WORLD_H_
#define BALLAST_TESTS_INTEGRATION_WORLD_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ballast/admin/v1/admin_service.grpc.pb.h"
#include "ballast/admin/v1/gate_service.grpc.pb.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/delta_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/v1/sampling_service.grpc.pb.h"
#include "common/base/testing/fake_clock.h"
#include "server/api/server.h"
#include "worker/agent/agent.h"
#include "worker/testing/fake_engine.h"
#include "worker/vault/envelope_vault.h"

namespace ballast::testing {

// A worker in this process: the real agent and vault with an engine without tensors.
class WorkerInProcess {
 public:
  // `vault_key` fills the wrapping key.
  WorkerInProcess(const std::string& address, const std::string& id, const std::string& cache_dir,
                  char vault_key = 'k', int checkpoint_steps = 0);
  ~WorkerInProcess();

  worker::testing::FakeEngineControl& engine() { return engine_; }
  // As SIGTERM: checkpoint, hand back, end.
  void Stop();

 private:
  worker::testing::FakeEngineControl engine_;
  worker::vault::EnvelopeVault vault_;
  FakeClock clock_;
  std::unique_ptr<worker::agent::WorkerClient> client_;
  std::unique_ptr<worker::agent::Agent> agent_;
};

// A server in this process over SQLite and a local folder on a clock that only tests move, with one
// base model (the tiny one of tests/testdata) and one data set, and calls to it as the operator or
// the tenant "acme". A call that fails ends the test.
class World {
 public:
  static constexpr char kBase[] = "baseModels/tiny";
  static constexpr char kTenant[] = "tenants/acme";

  World();
  ~World();

  const std::string& address() const { return server_->address(); }
  const std::string& folder() const { return folder_; }
  FakeClock& clock() { return clock_; }

  // Lets `duration` pass for the server.
  void Pass(absl::Duration duration);

  // A worker on this server, or on `address` where it is given.
  std::unique_ptr<WorkerInProcess> StartWorker(const std::string& id, char vault_key = 'k',
                                               int checkpoint_steps = 0,
                                               const std::string& address = "");

  // Trains a vector with whatever worker is there, and activates it without a certificate.
  admin::v1::Vector TrainVector();
  admin::v1::Vector RetireVector(const std::string& name);
  // Damages the stored ciphertexts: flips a bit in the middle of every sealed file.
  void CorruptSealedVectors();

  // Sets a gate that asks at scale 1 alone. The fake engine echoes prompts, and the set's own
  // phrase, which stands in every prohibited prompt, makes the base refuse those.
  admin::v1::Gate SetGate();
  // What the operators' calls about a job answer.
  absl::StatusOr<admin::v1::JobGate> GateReport(const std::string& job);
  absl::StatusOr<admin::v1::JobGate> ReleaseJob(const std::string& job);
  absl::StatusOr<admin::v1::JobGate> RefuseJob(const std::string& job);

  // 16 rows in 4 passes of 4 rows a step: 16 steps.
  v1::FineTuningJob CreateJob();
  v1::FineTuningJob GetJob(const std::string& name);
  v1::FineTuningJob CancelJob(const std::string& name);
  std::vector<v1::JobEvent> Events(const std::string& job);
  v1::FineTuningJob WaitForState(const std::string& job, v1::FineTuningJob::State state);
  v1::FineTuningJob WaitFor(const std::string& job,
                            const std::function<bool(const v1::FineTuningJob&)>& condition);

  v1::DeltaManifest GetManifest(const std::string& delta);
  std::string ReadDelta(const std::string& delta, const std::string& path);
  absl::Status TryReadDelta(const std::string& delta, const std::string& path, std::string* bytes);

  struct Reply {
    absl::Status status;
    std::string text;
    std::string finish_reason;
  };
  // Asks the base, or `delta` where it is given.
  Reply Sample(const std::string& prompt, const std::string& delta = "");

 private:
  void ImportBase();
  std::string UploadDataset();
  admin::v1::Vector GetVector(const std::string& name);

  const std::string folder_;
  FakeClock clock_;
  std::unique_ptr<server::JobStore> store_;
  std::unique_ptr<server::BlobStore> blobs_;
  std::unique_ptr<server::Authenticator> authenticator_;
  std::unique_ptr<server::RowChecks> row_checks_;
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<admin::v1::AdminService::Stub> admin_;
  std::unique_ptr<admin::v1::GateService::Stub> gates_;
  std::unique_ptr<v1::DatasetService::Stub> datasets_;
  std::unique_ptr<v1::FineTuningService::Stub> jobs_;
  std::unique_ptr<v1::DeltaService::Stub> deltas_;
  std::unique_ptr<v1::SamplingService::Stub> sampling_;
  std::string dataset_;
};

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_INTEGRATION_WORLD_H_
