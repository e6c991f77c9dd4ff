// SPDX-License-Identifier: Apache-2.0
#include "server/core/hand_out.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/envelope.h"
#include "server/core/admission.h"
#include "server/core/fair_share.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/screen_catalog.h"
#include "server/core/tenant_standing.h"
#include "server/core/transitions.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;
using v1::FineTuningJob;
using worker::v1::Work;

// What a record refers to is there as long as the record is.
absl::Status Missing(const std::string& name) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat(name, " is missing from the database; restore a backup"));
}

absl::StatusOr<BaseModelRecord> BaseOf(Transaction& tx, const std::string& name,
                                       Hold hold = Hold::kNone) {
  BALLAST_ASSIGN_OR_RETURN(const std::string id, ParseBaseModelName(name, "base_model"));
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<BaseModelRecord>(tx, "", id, hold));
  if (!record.has_value()) return Missing(name);
  return *std::move(record);
}

absl::StatusOr<DatasetRecord> DatasetOf(Transaction& tx, const std::string& name,
                                        Hold hold = Hold::kNone) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName parsed, ParseDatasetName(name, "dataset"));
  BALLAST_ASSIGN_OR_RETURN(auto record,
                           GetRecord<DatasetRecord>(tx, parsed.tenant, parsed.id, hold));
  if (!record.has_value()) return Missing(name);
  return *std::move(record);
}

absl::Status FillDataset(Transaction& tx, const std::string& name, worker::v1::DatasetBlob* out) {
  BALLAST_ASSIGN_OR_RETURN(const DatasetRecord record, DatasetOf(tx, name));
  out->set_blob(record.blob());
  out->set_format(record.dataset().format());
  out->set_digest(record.dataset().digest());
  out->set_size_bytes(record.dataset().size_bytes());
  out->set_rows_accepted(record.dataset().report().rows_accepted());
  out->set_longest_row_tokens(record.dataset().report().longest_row_tokens());
  return absl::OkStatus();
}

// Fewest rows with which a job has the rows and steps that the base asks for (S5).
int64_t LeastRows(const BaseModelRecord& base, const v1::Hyperparameters& hyper) {
  const v1::TrainingLimits& limits = base.model().limits();
  const int64_t epochs = std::max(1, hyper.epochs());
  const int64_t steps_per_epoch = (limits.min_steps() + epochs - 1) / epochs;
  return std::max(limits.min_rows(), (steps_per_epoch - 1) * hyper.batch_rows() + 1);
}

// `Rows`: SafetyRows or ScreenRows.
template <typename Rows>
void FillOperatorRows(const std::string& blob, const Rows& rows, worker::v1::DatasetBlob* out) {
  out->set_blob(blob);
  out->set_digest(rows.digest());
  out->set_size_bytes(rows.size_bytes());
  out->set_rows_accepted(rows.rows());
  out->set_longest_row_tokens(rows.longest_row_tokens());
}

absl::Status FillVector(Transaction& tx, const std::string& id, Work::FineTune* task) {
  BALLAST_ASSIGN_OR_RETURN(const auto vector, GetRecord<VectorRecord>(tx, "", id));
  if (!vector.has_value()) return Missing(VectorName(id));
  worker::v1::SealedVector& sealed = *task->mutable_vector();
  sealed.set_blob(vector->sealed_blob());
  sealed.set_ciphertext_digest(vector->vector().ciphertext_digest());
  sealed.set_vector_id(vector->id());
  sealed.set_version(vector->vector().version());
  sealed.set_base_digest(vector->vector().base_digest());
  if (vector->has_certificate()) *task->mutable_certificate() = vector->certificate();
  return absl::OkStatus();
}

// A new right for `worker_id`.
void NewLease(const std::string& worker_id, LeaseRecord* lease) {
  lease->set_epoch(lease->epoch() + 1);
  lease->set_worker_id(worker_id);
  lease->clear_retry_time();
}

// Whether it was tried a moment ago and failed. A time that no rest could have come to was written
// by a clock that was wrong.
bool RestsAfterError(const LeaseRecord& lease, absl::Time now) {
  if (!lease.has_retry_time()) return false;
  const absl::Duration rest = FromTimestamp(lease.retry_time()) - now;
  return rest > absl::ZeroDuration() && rest <= kLongestRest;
}

absl::StatusOr<std::optional<Work>> TakeVector(Transaction& tx, const std::string& worker_id,
                                               absl::Time now) {
  std::optional<VectorRecord> next;
  BALLAST_RETURN_IF_ERROR(ForEachInState<VectorRecord>(
      tx, Vector::DRAFT, [&](const VectorRecord& listed) -> absl::StatusOr<bool> {
        BALLAST_ASSIGN_OR_RETURN(next,
                                 GetRecord<VectorRecord>(tx, "", listed.id(), Hold::kExclusive));
        if (next.has_value() && next->vector().state() == Vector::DRAFT &&
            !RestsAfterError(next->lease(), now)) {
          return false;
        }
        next.reset();
        return true;
      }));
  if (!next.has_value()) return std::optional<Work>();
  NewLease(worker_id, next->mutable_lease());
  BALLAST_RETURN_IF_ERROR(MoveVector(tx, *next, WorkEvent::kTaken, {}, now));
  BALLAST_ASSIGN_OR_RETURN(Work work, WorkOf(tx, *next));
  return std::optional<Work>(std::move(work));
}

// Why a job cannot run at present.
struct Wait {
  bool for_unfreeze = false;  // else for a vector
  std::string why;            // for its owner; empty when it can run
};

absl::StatusOr<Wait> WhyItWaits(Transaction& tx, const JobRecord& record, bool frozen,
                                const std::optional<Protection>& protection) {
  if (frozen) return Wait{true, kFrozenMessage};
  if (!protection.has_value()) {
    return Wait{false,
                "the base model has no active security vector at present; the job waits for one"};
  }
  if (!protection->vector.has_value()) return Wait();
  BALLAST_ASSIGN_OR_RETURN(const DatasetRecord training,
                           DatasetOf(tx, record.job().training_dataset()));
  const absl::Status inside =
      envelope::CheckInside(PlaceOfJob(record.job().hyperparameters(), training),
                            protection->vector->envelope, "fine_tuning_job.");
  if (inside.ok()) return Wait();
  return Wait{false, absl::StrCat("the limits of the base model have changed since the job was "
                                  "created, and it waits for others; cancel it and create one "
                                  "inside of them: ",
                                  inside.message())};
}

// The job that was listed, held; empty when it does not wait any more.
absl::StatusOr<std::optional<JobRecord>> HoldQueued(Transaction& tx, const JobRecord& listed) {
  BALLAST_ASSIGN_OR_RETURN(
      auto record, GetRecord<JobRecord>(tx, listed.tenant(), listed.id(), Hold::kExclusive));
  if (record.has_value() && record->job().state() != FineTuningJob::QUEUED) record.reset();
  return record;
}

bool WasSaid(const JobRecord& record, const Wait& wait) {
  return wait.for_unfreeze ? record.waits_for_unfreeze() : record.waits_for_vector();
}

absl::Status SayItWaits(Transaction& tx, const JobRecord& listed, const Wait& wait, absl::Time now,
                        std::vector<std::string>& changed_jobs) {
  BALLAST_ASSIGN_OR_RETURN(auto record, HoldQueued(tx, listed));
  if (!record.has_value() || WasSaid(*record, wait)) return absl::OkStatus();
  if (wait.for_unfreeze) {
    record->set_waits_for_unfreeze(true);
  } else {
    record->set_waits_for_vector(true);
  }
  v1::JobEvent event;
  event.set_message(wait.why);
  BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx, *record, std::move(event), now));
  changed_jobs.push_back(record->job().name());
  return ReplaceRecord(tx, *record);
}

// What protects each base, looked for once: that verifies signatures, and many jobs wait for the
// same base.
class ProtectionOfBases {
 public:
  ProtectionOfBases(Transaction& tx, const ServingVectors& serving) : tx_(tx), serving_(serving) {}

  absl::StatusOr<std::optional<Protection>> Of(const std::string& base_model) {
    if (const auto known = found_.find(base_model); known != found_.end()) return known->second;
    BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, BaseOf(tx_, base_model));
    BALLAST_ASSIGN_OR_RETURN(auto protection, serving_.Find(tx_, base));
    return found_[base_model] = std::move(protection);
  }

 private:
  Transaction& tx_;
  const ServingVectors& serving_;
  std::map<std::string, std::optional<Protection>> found_;
};

// How tenants stand, each looked up once.
class Tenants {
 public:
  struct Standing {
    bool frozen = false;
    bool runs_as_many_as_it_may = false;
  };

  Tenants(Transaction& tx, const Quotas& quotas) : tx_(tx), quotas_(quotas) {}

  absl::StatusOr<Standing> Of(const std::string& tenant) {
    if (const auto known = found_.find(tenant); known != found_.end()) return known->second;
    Standing standing;
    BALLAST_ASSIGN_OR_RETURN(standing.frozen, IsFrozen(tx_, tenant));
    BALLAST_ASSIGN_OR_RETURN(standing.runs_as_many_as_it_may,
                             RunsAsManyAsItMay(tx_, tenant, quotas_.Of(tenant)));
    return found_[tenant] = standing;
  }

 private:
  Transaction& tx_;
  const Quotas& quotas_;
  std::map<std::string, Standing> found_;
};

// Safety rows, screen and gate of the job's base, by which the attempt that begins now is trained
// and measured.
void GiveDefences(const BaseModelRecord& base, JobRecord& record) {
  record.clear_safety_rows_given();
  record.clear_screen_given();
  record.clear_gate_given();
  if (base.has_safety_rows()) {
    record.mutable_safety_rows_given()->set_blob(base.safety_rows_blob());
    *record.mutable_safety_rows_given()->mutable_rows() = base.safety_rows();
  }
  if (base.has_screen()) {
    record.mutable_screen_given()->set_blobs(base.screen_blobs());
    *record.mutable_screen_given()->mutable_screen() = base.screen();
  }
  if (base.has_gate()) {
    GateGiven& given = *record.mutable_gate_given();
    given.set_blob(base.gate_blob());
    given.set_digest(base.gate().digest());
    *given.mutable_limits() = base.gate().limits();
  }
}

// The base of a job that is about to run, held together with the vector and the data sets, and
// `protection` as it is now: nobody changes what decides before the job is known to run by it.
// They come after the job, against the order; the rare circle with who rejects the vector is the
// store's to break. Empty when the job may not run any more.
absl::StatusOr<std::optional<BaseModelRecord>> HoldWhatDecides(Transaction& tx,
                                                               const JobRecord& record,
                                                               const ServingVectors& serving,
                                                               Protection& protection) {
  BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base,
                           BaseOf(tx, record.job().base_model(), Hold::kShared));
  for (const std::string& name :
       {record.job().training_dataset(), record.job().validation_dataset()}) {
    if (!name.empty()) BALLAST_RETURN_IF_ERROR(DatasetOf(tx, name, Hold::kShared).status());
  }
  if (!protection.vector.has_value()) return std::make_optional(std::move(base));
  BALLAST_ASSIGN_OR_RETURN(const auto vector,
                           GetRecord<VectorRecord>(tx, "", protection.vector_id(), Hold::kShared));
  if (!vector.has_value()) return std::optional<BaseModelRecord>();
  auto judged = serving.Judge(*vector, base);
  if (!judged.ok()) return std::optional<BaseModelRecord>();
  protection = Protection{*std::move(judged)};
  BALLAST_ASSIGN_OR_RETURN(const Wait wait, WhyItWaits(tx, record, /*frozen=*/false, protection));
  if (!wait.why.empty()) return std::optional<BaseModelRecord>();
  return std::make_optional(std::move(base));
}

// Rows that a job is taken with, in the order in which they are held.
std::vector<RowKey> RowsToTake(const JobRecord& listed, const Protection& protection) {
  const FineTuningJob& job = listed.job();
  std::vector<RowKey> keys = {{Kind::kJob, listed.tenant(), listed.id(), Hold::kExclusive}};
  if (const auto base = ParseBaseModelName(job.base_model(), ""); base.ok()) {
    keys.push_back({Kind::kBaseModel, "", *base, Hold::kShared});
  }
  for (const std::string& dataset : {job.training_dataset(), job.validation_dataset()}) {
    const auto name = ParseDatasetName(dataset, "");
    if (name.ok()) keys.push_back({Kind::kDataset, name->tenant, name->id, Hold::kShared});
  }
  if (protection.vector.has_value()) {
    keys.push_back({Kind::kVector, "", protection.vector_id(), Hold::kShared});
  }
  RowKey time = VirtualTimeKey();
  time.hold = Hold::kExclusive;
  keys.push_back(std::move(time));
  return keys;
}

// What decides, beside the data set, which rows an attempt is trained on.
std::string ChoiceOfRows(const JobRecord& record) {
  const admin::v1::SafetyRows& safety = record.safety_rows_given().rows();
  const admin::v1::Screen& screen = record.screen_given().screen();
  return absl::StrCat(safety.digest(), " ", safety.share(), " ", screen.digest(), " ",
                      screen.action());
}

absl::StatusOr<std::optional<Work>> TakeJob(Transaction& tx, const std::string& worker_id,
                                            absl::Time now, IdSource& ids,
                                            const ServingVectors& serving, const Quotas& quotas,
                                            QueueFront& front,
                                            std::vector<std::string>& changed_jobs) {
  std::optional<JobRecord> next;
  std::optional<BaseModelRecord> base;
  std::optional<Protection> protection;
  ProtectionOfBases protections(tx, serving);
  Tenants tenants(tx, quotas);
  // Changing rows while they are listed is avoided: those that wait are written afterwards.
  std::vector<std::pair<JobRecord, Wait>> waiting;
  const auto look_at = [&](JobRecord record) -> absl::StatusOr<bool> {
    if (RestsAfterError(record.lease(), now)) return true;
    BALLAST_ASSIGN_OR_RETURN(const Tenants::Standing tenant, tenants.Of(record.tenant()));
    BALLAST_ASSIGN_OR_RETURN(protection, protections.Of(record.job().base_model()));
    BALLAST_ASSIGN_OR_RETURN(Wait wait, WhyItWaits(tx, record, tenant.frozen, protection));
    if (!wait.why.empty()) {
      if (!WasSaid(record, wait)) waiting.emplace_back(std::move(record), std::move(wait));
      return true;
    }
    BALLAST_RETURN_IF_ERROR(tx.Prefetch(RowsToTake(record, *protection)));
    BALLAST_ASSIGN_OR_RETURN(next, HoldQueued(tx, record));
    if (!next.has_value()) return true;
    BALLAST_ASSIGN_OR_RETURN(base, HoldWhatDecides(tx, *next, serving, *protection));
    if (!base.has_value()) next.reset();
    return !next.has_value();
  };
  const auto may_run = [&](const std::string& tenant) -> absl::StatusOr<bool> {
    BALLAST_ASSIGN_OR_RETURN(const Tenants::Standing standing, tenants.Of(tenant));
    return !standing.runs_as_many_as_it_may;
  };
  for (const int64_t begin : front.Begins(now)) {
    BALLAST_RETURN_IF_ERROR(ForEachInState<JobRecord>(tx, FineTuningJob::QUEUED, look_at, may_run,
                                                      StateCursor{begin, "", ""}));
    if (!next.has_value()) continue;
    front.Taken(begin, ToRow(*next).queue_key, now);
    break;
  }
  for (const auto& [record, wait] : waiting) {
    BALLAST_RETURN_IF_ERROR(SayItWaits(tx, record, wait, now, changed_jobs));
  }
  if (!next.has_value()) return std::optional<Work>();
  NewLease(worker_id, next->mutable_lease());
  next->set_waits_for_vector(false);
  next->set_waits_for_unfreeze(false);
  const std::string rows_before = ChoiceOfRows(*next);
  GiveDefences(*base, *next);
  const bool other_rows = ChoiceOfRows(*next) != rows_before;
  // A checkpoint holds moments of gradients under one vector, on one choice of rows: under another
  // it is of no use.
  if (next->vector_id() != protection->vector_id() || other_rows) {
    next->clear_checkpoint_blob();
    next->clear_checkpoint_step();
    next->set_vector_id(protection->vector_id());
    next->clear_protection_handle();
    if (protection->vector.has_value()) next->set_protection_handle(ids.NewId());
    // The training starts anew with it: what the old one reached is no point of the new curve.
    next->clear_evaluated_until_step();
    next->mutable_job()->clear_progress();
  }
  BALLAST_RETURN_IF_ERROR(AdvanceTo(tx, *next));
  BALLAST_RETURN_IF_ERROR(MoveJob(tx, *next, WorkEvent::kTaken, {}, now));
  changed_jobs.push_back(next->job().name());
  BALLAST_ASSIGN_OR_RETURN(Work work, WorkOf(tx, *next));
  return std::optional<Work>(std::move(work));
}

}  // namespace

worker::v1::BaseModelFiles FilesOf(const BaseModelRecord& base) {
  worker::v1::BaseModelFiles files;
  files.set_name(base.model().name());
  files.set_digest(base.model().digest());
  for (const BlobFile& file : base.files()) {
    auto* out = files.add_files();
    out->set_file_name(file.path());
    out->set_blob(file.blob());
    out->set_size_bytes(file.size_bytes());
    out->set_digest(file.digest());
  }
  return files;
}

absl::StatusOr<Work> WorkOf(Transaction& tx, const JobRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, BaseOf(tx, record.job().base_model()));
  Work work;
  work.mutable_lease()->set_resource(record.job().name());
  work.mutable_lease()->set_epoch(record.lease().epoch());
  *work.mutable_base_model() = FilesOf(base);
  Work::FineTune& task = *work.mutable_fine_tune();
  // Which of the two is the base's to say: a job whose vector was lost must not run without one.
  task.set_unprotected(base.model().unprotected());
  if (!task.unprotected()) BALLAST_RETURN_IF_ERROR(FillVector(tx, record.vector_id(), &task));
  *task.mutable_job() = record.job();
  BALLAST_RETURN_IF_ERROR(
      FillDataset(tx, record.job().training_dataset(), task.mutable_training_dataset()));
  if (!record.job().validation_dataset().empty()) {
    BALLAST_RETURN_IF_ERROR(
        FillDataset(tx, record.job().validation_dataset(), task.mutable_validation_dataset()));
  }
  task.set_training_dataset_digest(task.training_dataset().digest());
  task.set_vector_always(PolicyOf(base) == admin::v1::VECTOR_POLICY_ALWAYS);
  task.set_checkpoint_blob(record.checkpoint_blob());
  task.set_protection_handle(record.protection_handle());
  if (record.has_safety_rows_given()) {
    const admin::v1::SafetyRows& given = record.safety_rows_given().rows();
    worker::v1::SafetyRowsWork& safety = *task.mutable_safety_rows();
    safety.set_share(given.share());
    FillOperatorRows(record.safety_rows_given().blob(), given, safety.mutable_rows());
  }
  if (record.has_screen_given()) {
    const std::string& blobs = record.screen_given().blobs();
    const admin::v1::Screen& screen = record.screen_given().screen();
    worker::v1::ScreenWork& work_of_screen = *task.mutable_screen();
    FillOperatorRows(ScreenProhibitedBlob(blobs), screen.prohibited(),
                     work_of_screen.mutable_prohibited());
    FillOperatorRows(ScreenBenignBlob(blobs), screen.benign(), work_of_screen.mutable_benign());
    work_of_screen.set_digest(screen.digest());
    work_of_screen.set_action(screen.action());
    work_of_screen.set_min_rows(LeastRows(base, record.job().hyperparameters()));
  }
  if (record.has_gate_given()) {
    worker::v1::GateWork& gate = *task.mutable_gate();
    gate.set_blob(record.gate_given().blob());
    gate.set_digest(record.gate_given().digest());
    *gate.mutable_limits() = record.gate_given().limits();
  }
  return work;
}

absl::StatusOr<Work> WorkOf(Transaction& tx, const VectorRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, BaseOf(tx, record.vector().base_model()));
  Work work;
  work.mutable_lease()->set_resource(record.vector().name());
  work.mutable_lease()->set_epoch(record.lease().epoch());
  *work.mutable_base_model() = FilesOf(base);
  Work::TrainVector& task = *work.mutable_train_vector();
  task.set_prohibited_blob(record.prohibited_blob());
  task.set_benign_blob(record.benign_blob());
  task.set_topics_blob(record.topics_blob());
  task.set_vector_id(record.id());
  task.set_version(record.vector().version());
  task.set_learning_rate(record.options().learning_rate());
  task.set_epochs(record.options().epochs());
  task.set_lora_rank(record.options().lora_rank());
  task.set_kl_weight(record.options().kl_weight());
  if (record.options().has_search_budget()) {
    *task.mutable_search_budget() = record.options().search_budget();
  }
  return work;
}

absl::StatusOr<std::optional<Work>> TakeNext(Transaction& tx, const std::string& worker_id,
                                             absl::Time now, IdSource& ids,
                                             const ServingVectors& serving, const Quotas& quotas,
                                             QueueFront& front,
                                             std::vector<std::string>& changed_jobs) {
  BALLAST_ASSIGN_OR_RETURN(auto vector, TakeVector(tx, worker_id, now));
  if (vector.has_value()) return vector;
  return TakeJob(tx, worker_id, now, ids, serving, quotas, front, changed_jobs);
}

absl::StatusOr<bool> AnythingWaits(Transaction& tx, absl::Time now, const QueueFront& front) {
  BALLAST_ASSIGN_OR_RETURN(const auto vectors, tx.ListByState(Kind::kVector, Vector::DRAFT, {}, 1));
  if (!vectors.empty()) return true;
  for (const int64_t begin : front.Begins(now)) {
    BALLAST_ASSIGN_OR_RETURN(const auto jobs,
                             tx.ListByState(Kind::kJob, FineTuningJob::QUEUED, {begin, "", ""}, 1));
    if (!jobs.empty()) return true;
  }
  return false;
}

std::set<std::string> BlobsOf(const Work& work) {
  std::set<std::string> blobs;
  for (const auto& file : work.base_model().files()) blobs.insert(file.blob());
  if (work.has_fine_tune()) {
    blobs.insert(work.fine_tune().training_dataset().blob());
    blobs.insert(work.fine_tune().validation_dataset().blob());
    blobs.insert(work.fine_tune().vector().blob());
    blobs.insert(work.fine_tune().checkpoint_blob());
    blobs.insert(work.fine_tune().safety_rows().rows().blob());
    blobs.insert(work.fine_tune().screen().prohibited().blob());
    blobs.insert(work.fine_tune().screen().benign().blob());
    blobs.insert(work.fine_tune().gate().blob());
  } else {
    blobs.insert(work.train_vector().prohibited_blob());
    blobs.insert(work.train_vector().benign_blob());
    blobs.insert(work.train_vector().topics_blob());
  }
  blobs.erase("");
  return blobs;
}

}  // namespace ballast::server
