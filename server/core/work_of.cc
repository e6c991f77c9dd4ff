// SPDX-License-Identifier: Apache-2.0
#include "server/core/work_of.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/screen_catalog.h"
#include "server/core/serving_vector.h"

namespace ballast::server {
namespace {

using worker::v1::Work;

// What a record refers to is there as long as the record is.
absl::Status Missing(const std::string& name) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat(name, " is missing from the database; restore a backup"));
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

}  // namespace

absl::StatusOr<BaseModelRecord> BaseOf(Transaction& tx, const std::string& name, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(const std::string id, ParseBaseModelName(name, "base_model"));
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<BaseModelRecord>(tx, "", id, hold));
  if (!record.has_value()) return Missing(name);
  return *std::move(record);
}

absl::StatusOr<DatasetRecord> DatasetOf(Transaction& tx, const std::string& name, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName parsed, ParseDatasetName(name, "dataset"));
  BALLAST_ASSIGN_OR_RETURN(auto record,
                           GetRecord<DatasetRecord>(tx, parsed.tenant, parsed.id, hold));
  if (!record.has_value()) return Missing(name);
  return *std::move(record);
}

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
