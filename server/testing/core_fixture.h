// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_CORE_FIXTURE_H_
#define BALLAST_SERVER_TESTING_CORE_FIXTURE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/core/collaborators.h"
#include "server/core/control_plane.h"
#include "server/core/dataset_catalog.h"
#include "server/core/gate_catalog.h"
#include "server/core/job_catalog.h"
#include "server/core/serving_vector.h"
#include "server/core/tenant_standing.h"
#include "server/core/vector_catalog.h"
#include "server/core/vector_certification.h"
#include "server/core/withheld_jobs.h"
#include "server/testing/fake_job_store.h"
#include "server/testing/suite_results.h"

namespace ballast::server::testing {

// SHA-256 of "base".
inline const std::string kBaseDigest = DigestOf("base");

// Ids 00…1, 00…2, … Thread safety: thread-safe.
class CountingIds : public IdSource {
 public:
  std::string NewId() override;
  int64_t NewSeed() override { return ++count_; }

 private:
  std::atomic<int64_t> count_ = 0;
};

class SilentListener : public ChangeListener {
 public:
  void JobChanged(const std::string&, const std::string&) override {}
  void WorkAdded() override {}
  void DatasetUploaded() override {}
  void GarbageAdded() override {}
};

// Core on a store in memory: a base model "base" with the vector vec-1, ACTIVE without certificate,
// and helpers that stand for customers and workers. Time is `now_`.
class CoreFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  // A new ControlPlane on the same store, as after a crash.
  void Restart();

  void AddBase(const std::string& id, const std::string& digest);
  void AddActiveVector(const std::string& id, int version) {
    AddVector(id, version, admin::v1::Vector::ACTIVE);
  }
  // ACTIVE ones have an operator's reason, and no certificate.
  void AddVector(const std::string& id, int version, admin::v1::Vector::State state);
  // A result of the suite for a vector of "base" that passes every criterion.
  admin::v1::SuiteResult GoodResult(const std::string& id);
  // One that fails: the attack works under the vector.
  admin::v1::SuiteResult BadResult(const std::string& id);
  // Changes a vector's record behind the back of the core, as somebody at the database would.
  void Tamper(const std::string& id, const std::function<void(VectorRecord&)>& change);
  // The same with the base model "base".
  void ChangeBase(const std::function<void(BaseModelRecord&)>& change);
  // A READY data set of 100 rows and 10,000 tokens. Returns its name.
  std::string AddDataset(const std::string& tenant);
  // A gate of 36 prohibited prompts of the category "a" and 36 look-alikes for the base.
  admin::v1::Gate SetGate();
  static behaviour::BehaviourSet GateSet();
  void InsertQueuedJob(const std::string& id, const std::string& base_model);

  v1::CreateFineTuningJobRequest JobRequest(const std::string& tenant);
  std::string CreateJob(const std::string& tenant = "acme");
  std::string CreateVector(const std::string& id);
  static TenantName Parse(const std::string& name);
  v1::FineTuningJob Job(const std::string& name);
  v1::FineTuningJob Cancel(const std::string& name);
  std::vector<v1::JobEvent> Events(const std::string& name);
  admin::v1::Vector Vector(const std::string& id);
  std::vector<std::string> Garbage();

  static worker::v1::SynchronizeRequest Request(const std::string& worker);
  worker::v1::SynchronizeResponse Sync(const worker::v1::SynchronizeRequest& request);
  worker::v1::SynchronizeResponse Idle(const std::string& worker);
  worker::v1::SynchronizeResponse Busy(const std::string& worker, const worker::v1::Lease& lease,
                                       int64_t step);
  // Writes a checkpoint as the worker would.
  void WriteCheckpoint(const std::string& worker, const worker::v1::Lease& lease, int64_t step);
  static worker::v1::SynchronizeRequest Finished(const std::string& worker,
                                                 const worker::v1::Lease& lease);
  // A delta of two files after 7 steps and 7,000 tokens.
  static worker::v1::SynchronizeRequest FinishedDelta(const std::string& worker,
                                                      const worker::v1::Lease& lease);

  // The same with a report of `digest`'s gate, which failed in `failed` unless that is empty.
  static worker::v1::SynchronizeRequest FinishedGate(const std::string& worker,
                                                     const worker::v1::Lease& lease,
                                                     const std::string& digest,
                                                     const std::vector<std::string>& failed);
  // Creates a job of `tenant` and brings it to WITHHELD; SetGate was called. Its name.
  std::string CreateWithheldJob(const std::string& tenant = "acme");

  static constexpr int kWithheldBudget = 3;
  static constexpr absl::Duration kWithheldExpiry = absl::Hours(48);

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  FakeJobStore store_;
  CountingIds ids_;
  SilentListener listener_;
  KeySigner signer_;
  ServingVectors serving_{&signer_};
  // To be changed before Restart.
  Quotas quotas_;
  v1::Money price_;  // none
  std::unique_ptr<JobCatalog> jobs_;
  std::unique_ptr<DatasetCatalog> datasets_;
  std::unique_ptr<VectorCatalog> vectors_;
  std::unique_ptr<VectorCertification> certification_;
  std::unique_ptr<GateCatalog> gates_;
  std::unique_ptr<WithheldJobs> withheld_;
  std::unique_ptr<TenantStandings> standings_;
  std::unique_ptr<ControlPlane> plane_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_CORE_FIXTURE_H_
