// SPDX-License-Identifier: Apache-2.0
#include "server/testing/core_fixture.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/digest.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "server/core/admission.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server::testing {

using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

std::string CountingIds::NewId() { return absl::StrFormat("%032d", ++count_); }

void CoreFixture::SetUp() {
  jobs_ = std::make_unique<JobCatalog>(store_, ids_, listener_, serving_, quotas_, price_);
  datasets_ = std::make_unique<DatasetCatalog>(store_, ids_, listener_, quotas_);
  vectors_ = std::make_unique<VectorCatalog>(store_, listener_, serving_);
  certification_ = std::make_unique<VectorCertification>(store_, listener_, serving_);
  gates_ = std::make_unique<GateCatalog>(store_, listener_);
  withheld_ = std::make_unique<WithheldJobs>(store_, listener_, kWithheldExpiry);
  standings_ = std::make_unique<TenantStandings>(store_, listener_, quotas_, kWithheldBudget);
  Restart();
  AddBase("base", kBaseDigest);
  AddActiveVector("vec-1", 1);
}

void CoreFixture::Restart() {
  ControlPlane::Options options;
  options.withheld_budget = kWithheldBudget;
  ASSERT_OK_AND_ASSIGN(
      plane_, ControlPlane::Create(store_, ids_, listener_, serving_, quotas_, options, now_));
}

void CoreFixture::AddBase(const std::string& id, const std::string& digest) {
  BaseModelRecord record;
  record.set_id(id);
  v1::BaseModel& model = *record.mutable_model();
  model.set_name(BaseModelName(id));
  model.set_digest(digest);
  model.set_context_tokens(2048);
  model.set_tokenizer_digest("tok");
  model.set_template_digest("tpl");
  *model.mutable_limits() = DefaultLimits();
  for (const char* path : {"config.json", "model.safetensors"}) {
    BlobFile& file = *record.add_files();
    file.set_path(path);
    file.set_blob(absl::StrCat("baseModels/", id, "/", path));
  }
  ASSERT_OK(store_.Update([&](Transaction& tx) { return InsertRecord(tx, record); }));
}

void CoreFixture::AddVector(const std::string& id, int version, admin::v1::Vector::State state) {
  VectorRecord record;
  record.set_id(id);
  record.set_sealed_blob(absl::StrCat("vectors/", id, "/attempts/1/sealed"));
  admin::v1::Vector& vector = *record.mutable_vector();
  vector.set_name(VectorName(id));
  vector.set_base_model("baseModels/base");
  vector.set_base_digest(kBaseDigest);
  vector.set_version(version);
  vector.set_state(state);
  if (state == admin::v1::Vector::ACTIVE) {
    vector.mutable_activation()->set_reason("for these tests");
  }
  vector.set_ciphertext_digest(DigestOf(id));
  vector.mutable_report()->set_prohibited_loss_without(4.0);
  vector.mutable_report()->set_prohibited_loss_with(0.1);
  ASSERT_OK(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto base,
                             GetRecord<BaseModelRecord>(tx, "", "base", Hold::kExclusive));
    base->set_last_vector_version(version);
    BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *base));
    return InsertRecord(tx, record);
  }));
}

admin::v1::SuiteResult CoreFixture::GoodResult(const std::string& id) {
  return PassingResult(VectorName(id), Vector(id).ciphertext_digest(), kBaseDigest,
                       admin::v1::VECTOR_POLICY_ALWAYS);
}

admin::v1::SuiteResult CoreFixture::BadResult(const std::string& id) {
  admin::v1::SuiteResult result = GoodResult(id);
  for (auto& arm : *result.mutable_arms()) {
    if (arm.attack() == "mixed" && arm.defence() == admin::v1::DEFENCE_VECTOR) {
      SetNotRefused(arm, 1000);
    }
  }
  return result;
}

void CoreFixture::Tamper(const std::string& id, const std::function<void(VectorRecord&)>& change) {
  ASSERT_OK(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<VectorRecord>(tx, "", id, Hold::kExclusive));
    change(*record);
    return ReplaceRecord(tx, *record);
  }));
}

void CoreFixture::ChangeBase(const std::function<void(BaseModelRecord&)>& change) {
  ASSERT_OK(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<BaseModelRecord>(tx, "", "base", Hold::kExclusive));
    change(*record);
    return ReplaceRecord(tx, *record);
  }));
}

std::string CoreFixture::AddDataset(const std::string& tenant) {
  DatasetRecord record;
  record.set_tenant(tenant);
  record.set_id(absl::StrCat("ds-", ids_.NewId()));
  record.set_blob(DatasetBlob(tenant, record.id()));
  v1::Dataset& dataset = *record.mutable_dataset();
  dataset.set_name(DatasetName(tenant, record.id()));
  dataset.set_base_model("baseModels/base");
  dataset.set_state(v1::Dataset::READY);
  dataset.set_tokenizer_digest("tok");
  dataset.set_template_digest("tpl");
  dataset.set_digest(DigestOf(record.id()));
  dataset.mutable_report()->set_rows_accepted(100);
  dataset.mutable_report()->set_total_tokens(10'000);
  dataset.mutable_report()->set_supervised_tokens(4'000);
  EXPECT_OK(store_.Update([&](Transaction& tx) { return InsertRecord(tx, record); }));
  return dataset.name();
}

behaviour::BehaviourSet CoreFixture::GateSet() {
  behaviour::BehaviourSet set;
  for (int i = 0; i < 36; ++i) {
    set.prohibited.push_back({"a", absl::StrCat("withheld ", i)});
    set.look_alikes.push_back(absl::StrCat("how do I kill process ", i));
  }
  return set;
}

admin::v1::Gate CoreFixture::SetGate() {
  const std::string blob = GateBlob("base", ids_.NewId());
  const auto limits = CompleteGateLimits({});
  EXPECT_OK(limits);
  EXPECT_OK(gates_->Expect("base", GateSet(), *limits, blob));
  const auto gate =
      gates_->Set(now_, "base", GateSet(), *limits, blob, DigestOf(absl::StrCat("set ", blob)), 99);
  EXPECT_OK(gate);
  return gate.value_or(admin::v1::Gate());
}

void CoreFixture::InsertQueuedJob(const std::string& id, const std::string& base_model) {
  JobRecord record;
  record.set_tenant("acme");
  record.set_id(id);
  record.mutable_job()->set_name(JobName("acme", id));
  record.mutable_job()->set_base_model(base_model);
  record.mutable_job()->set_state(v1::FineTuningJob::QUEUED);
  *record.mutable_job()->mutable_create_time() = ToTimestamp(now_);
  ASSERT_OK(store_.Update([&](Transaction& tx) { return InsertRecord(tx, record); }));
}

v1::CreateFineTuningJobRequest CoreFixture::JobRequest(const std::string& tenant) {
  v1::CreateFineTuningJobRequest request;
  request.set_parent("tenants/" + tenant);
  request.mutable_fine_tuning_job()->set_base_model("baseModels/base");
  request.mutable_fine_tuning_job()->set_training_dataset(AddDataset(tenant));
  return request;
}

std::string CoreFixture::CreateJob(const std::string& tenant) {
  const auto job = jobs_->Create(now_, tenant, JobRequest(tenant));
  EXPECT_OK(job);
  return job.ok() ? job->name() : "";
}

std::string CoreFixture::CreateVector(const std::string& id) {
  admin::v1::VectorOptions options;
  options.set_base_model("baseModels/base");
  EXPECT_OK(VectorCatalog::CompleteOptions(&options));
  EXPECT_OK(vectors_->Expect(id));
  const auto vector = vectors_->Create(now_, id, options,
                                       {absl::StrCat("vectors/", id, "/rows/prohibited"),
                                        absl::StrCat("vectors/", id, "/rows/benign"), ""});
  EXPECT_OK(vector);
  return VectorName(id);
}

TenantName CoreFixture::Parse(const std::string& name) {
  return ParseJobName(name, "name").value_or(TenantName{});
}

v1::FineTuningJob CoreFixture::Job(const std::string& name) {
  const auto job = jobs_->Get(now_, Parse(name).tenant, Parse(name));
  EXPECT_OK(job);
  return job.value_or(v1::FineTuningJob());
}

v1::FineTuningJob CoreFixture::Cancel(const std::string& name) {
  const auto job = jobs_->Cancel(now_, Parse(name).tenant, Parse(name));
  EXPECT_OK(job);
  return job.value_or(v1::FineTuningJob());
}

std::vector<v1::JobEvent> CoreFixture::Events(const std::string& name) {
  v1::ListFineTuningJobEventsRequest request;
  request.set_parent(name);
  const auto events = jobs_->ListEvents(Parse(name).tenant, request);
  EXPECT_OK(events);
  if (!events.ok()) return {};
  return {events->events().begin(), events->events().end()};
}

admin::v1::Vector CoreFixture::Vector(const std::string& id) {
  const auto vector = vectors_->Get(id);
  EXPECT_OK(vector);
  return vector.value_or(admin::v1::Vector());
}

std::vector<std::string> CoreFixture::Garbage() {
  std::vector<std::string> garbage;
  EXPECT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
    const auto rows = tx.ListGarbage("", 100);
    for (const GarbageRow& row : *rows) {
      garbage.push_back(row.blob_prefix);
    }
    return absl::OkStatus();
  }));
  return garbage;
}

SynchronizeRequest CoreFixture::Request(const std::string& worker) {
  SynchronizeRequest request;
  request.set_worker_id(worker);
  request.set_device("cpu");
  request.set_version("test");
  return request;
}

SynchronizeResponse CoreFixture::Sync(const SynchronizeRequest& request) {
  const auto response = plane_->Synchronize(now_, request);
  EXPECT_OK(response);
  return response.value_or(SynchronizeResponse());
}

SynchronizeResponse CoreFixture::Idle(const std::string& worker) {
  SynchronizeRequest request = Request(worker);
  request.mutable_idle();
  return Sync(request);
}

SynchronizeResponse CoreFixture::Busy(const std::string& worker, const worker::v1::Lease& lease,
                                      int64_t step) {
  SynchronizeRequest request = Request(worker);
  *request.mutable_busy()->mutable_lease() = lease;
  request.mutable_busy()->set_step(step);
  return Sync(request);
}

void CoreFixture::WriteCheckpoint(const std::string& worker, const worker::v1::Lease& lease,
                                  int64_t step) {
  worker::v1::WriteBlobRequest write;
  *write.mutable_lease() = lease;
  write.set_worker_id(worker);
  write.set_checkpoint_step(step);
  ASSERT_OK_AND_ASSIGN(const std::string blob, plane_->BlobToWrite(now_, write));
  ASSERT_OK(plane_->CommitBlob(now_, write, blob, [] { return absl::OkStatus(); }));
}

SynchronizeRequest CoreFixture::Finished(const std::string& worker,
                                         const worker::v1::Lease& lease) {
  SynchronizeRequest request = Request(worker);
  *request.mutable_finished()->mutable_lease() = lease;
  return request;
}

SynchronizeRequest CoreFixture::FinishedDelta(const std::string& worker,
                                              const worker::v1::Lease& lease) {
  SynchronizeRequest request = Finished(worker, lease);
  auto& delta = *request.mutable_finished()->mutable_delta();
  for (const char* path : {"adapter/adapter_model.safetensors", "manifest.json"}) {
    auto& file = *delta.add_files();
    file.set_path(path);
    file.set_size_bytes(3);
    file.set_digest(DigestOf(path));
  }
  delta.set_manifest_digest(DigestOf("manifest.json"));
  request.mutable_finished()->mutable_final_state()->set_step(7);
  request.mutable_finished()->mutable_final_state()->set_total_steps(7);
  request.mutable_finished()->mutable_final_state()->set_trained_tokens(7000);
  return request;
}

SynchronizeRequest CoreFixture::FinishedGate(const std::string& worker,
                                             const worker::v1::Lease& lease,
                                             const std::string& digest,
                                             const std::vector<std::string>& failed) {
  SynchronizeRequest request = FinishedDelta(worker, lease);
  admin::v1::GateReport& report = *request.mutable_finished()->mutable_delta()->mutable_gate();
  report.set_gate_digest(digest);
  report.set_verdict(failed.empty() ? admin::v1::GateReport::PASSED
                                    : admin::v1::GateReport::FAILED);
  for (const std::string& category : failed) report.add_failed_categories(category);
  admin::v1::GateScale& scale = *report.add_scales();
  scale.set_scale(1);
  scale.add_prohibited()->set_rise(0.8125);
  return request;
}

std::string CoreFixture::CreateWithheldJob(const std::string& tenant) {
  now_ += absl::Seconds(1);
  const std::string name = CreateJob(tenant);
  const worker::v1::Work work = Idle("maker").work();
  EXPECT_EQ(work.lease().resource(), name);
  SynchronizeRequest request =
      FinishedGate("maker", work.lease(), work.fine_tune().gate().digest(), {"a"});
  request.set_draining(true);
  Sync(request);
  EXPECT_EQ(Job(name).state(), v1::FineTuningJob::WITHHELD);
  return name;
}

}  // namespace ballast::server::testing
