// SPDX-License-Identifier: Apache-2.0
#include "server/core/job_catalog.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/core/admission.h"
#include "server/core/dataset_rules.h"
#include "server/core/fair_share.h"
#include "server/core/paging.h"
#include "server/core/records.h"
#include "server/core/request_id.h"
#include "server/core/tenant_standing.h"
#include "server/core/transitions.h"
#include "server/core/usage.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;

// The record of a job that `tenant` owns.
absl::StatusOr<JobRecord> Find(Transaction& tx, const std::string& tenant, const TenantName& name,
                               Hold hold = Hold::kNone) {
  if (name.tenant != tenant) return JobNotFound(name);
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<JobRecord>(tx, name.tenant, name.id, hold));
  if (!record.has_value() || record->deleted()) return JobNotFound(name);
  return *std::move(record);
}

// What an earlier request with the same id has made.
absl::StatusOr<JobRecord> FindMade(Transaction& tx, const std::string& tenant,
                                   const std::string& id) {
  auto record = Find(tx, tenant, {tenant, id});
  if (record.ok() || ErrorReason(record.status()) != "JOB_NOT_FOUND") return record;
  return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_DELETED",
                   absl::StrCat("the job that this request_id has made, ", JobName(tenant, id),
                                ", was deleted; create another one with a new request_id"));
}

// Of a job that is made: the data set stays until the job is there.
absl::StatusOr<DatasetRecord> FindNamedDataset(Transaction& tx, const std::string& tenant,
                                               const std::string& dataset_name,
                                               const std::string& field) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDatasetName(dataset_name, field));
  return FindDataset(tx, tenant, name, Hold::kShared);
}

// Holds the data sets of a job that is about to go on: who looks for jobs that read one waits. One
// that is missing was of a job that has ended.
absl::Status HoldDatasets(Transaction& tx, const JobRecord& record) {
  for (const std::string& dataset :
       {record.job().training_dataset(), record.job().validation_dataset()}) {
    if (dataset.empty()) continue;
    BALLAST_ASSIGN_OR_RETURN(const TenantName parsed, ParseDatasetName(dataset, "name"));
    BALLAST_RETURN_IF_ERROR(
        GetRecord<DatasetRecord>(tx, parsed.tenant, parsed.id, Hold::kShared).status());
  }
  return absl::OkStatus();
}

// Why `job` cannot be moved by what its owner asks for.
absl::Status NotPossible(const FineTuningJob& job, WorkEvent event) {
  const std::string state = FineTuningJob::State_Name(job.state());
  const std::string asked = event == WorkEvent::kCancel  ? "cancelled"
                            : event == WorkEvent::kPause ? "paused"
                                                         : "resumed";
  const auto error = [&](const char* reason, const std::string& why) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason,
                     absl::StrCat(job.name(), " ", why), {{"state", state}});
  };
  switch (job.state()) {
    case FineTuningJob::WITHHELD:
      return error("JOB_WITHHELD",
                   absl::StrCat("is trained, and the operator decides on its delta; it cannot be ",
                                asked, " any more"));
    case FineTuningJob::CANCELLING:
      return error("JOB_CANCELLING",
                   absl::StrCat("is being cancelled and cannot be ", asked, " any more"));
    case FineTuningJob::PAUSING:
      return WithRetry(error("JOB_PAUSING",
                             "has not stopped yet: its worker writes a checkpoint first; try again "
                             "in a moment"),
                       absl::Seconds(2));
    default:
      return error("JOB_ENDED", absl::StrCat("has ended: it is ", state, " and cannot be ", asked));
  }
}

// Rows that the creation of a job reads, in the order in which they are held. Names that cannot be
// read are left out: Compose says what is wrong with them.
std::vector<RowKey> RowsToCompose(const std::string& tenant, const FineTuningJob& asked) {
  std::vector<RowKey> keys;
  if (const auto base = ParseBaseModelName(asked.base_model(), ""); base.ok()) {
    keys.push_back({Kind::kBaseModel, "", *base, Hold::kNone});
  }
  for (const std::string& dataset : {asked.training_dataset(), asked.validation_dataset()}) {
    const auto name = ParseDatasetName(dataset, "");
    if (!name.ok() || name->tenant != tenant) continue;
    keys.push_back({Kind::kDataset, name->tenant, name->id, Hold::kShared});
  }
  keys.push_back({Kind::kTenant, "", tenant, Hold::kExclusive});
  keys.push_back(VirtualTimeKey());
  return keys;
}

}  // namespace

absl::Status JobNotFound(const TenantName& name) {
  return MakeError(absl::StatusCode::kNotFound, "JOB_NOT_FOUND",
                   absl::StrCat(JobName(name.tenant, name.id),
                                " does not exist; list your jobs to see their names"));
}

absl::Status BaseModelNotFound(const std::string& id) {
  return MakeError(absl::StatusCode::kNotFound, "BASE_MODEL_NOT_FOUND",
                   absl::StrCat(BaseModelName(id), " does not exist; list the base models"));
}

absl::StatusOr<BaseModelRecord> FindBaseModel(Transaction& tx, const std::string& id, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<BaseModelRecord>(tx, "", id, hold));
  if (!record.has_value()) return BaseModelNotFound(id);
  return *std::move(record);
}

absl::Status DatasetNotFound(const TenantName& name) {
  return MakeError(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND",
                   absl::StrCat(DatasetName(name.tenant, name.id),
                                " does not exist; list your data sets to see their names"));
}

absl::StatusOr<FineTuningJob> JobCatalog::ToJob(Transaction& tx, const JobRecord& record,
                                                WaitingView& view, Start start) {
  FineTuningJob job = record.job();
  if (job.state() != FineTuningJob::QUEUED) return job;
  BALLAST_ASSIGN_OR_RETURN(const int64_t before,
                           tx.CountBefore(Kind::kJob, FineTuningJob::QUEUED, ToRow(record)));
  job.set_queue_position(static_cast<int32_t>(before));
  BALLAST_ASSIGN_OR_RETURN(*job.mutable_waiting(), start == Start::kWithBounds
                                                       ? view.DescribeWithStart(record)
                                                       : view.Describe(record));
  return job;
}

absl::StatusOr<JobRecord> JobCatalog::Compose(Transaction& tx, absl::Time now,
                                              const std::string& tenant,
                                              const FineTuningJob& asked) {
  BALLAST_RETURN_IF_ERROR(CheckMaySubmit(tx, tenant));
  BALLAST_RETURN_IF_ERROR(CheckMayQueue(tx, tenant, quotas_.Of(tenant)));
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(asked.base_model(), "fine_tuning_job.base_model"));
  BALLAST_ASSIGN_OR_RETURN(auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
  if (!base.has_value()) return BaseModelNotFound(base_id);
  BALLAST_ASSIGN_OR_RETURN(
      const DatasetRecord training,
      FindNamedDataset(tx, tenant, asked.training_dataset(), "fine_tuning_job.training_dataset"));
  std::optional<DatasetRecord> validation;
  if (!asked.validation_dataset().empty()) {
    BALLAST_ASSIGN_OR_RETURN(validation, FindNamedDataset(tx, tenant, asked.validation_dataset(),
                                                          "fine_tuning_job.validation_dataset"));
  }
  BALLAST_ASSIGN_OR_RETURN(const auto protection, serving_.Find(tx, *base));
  *base->mutable_model()->mutable_limits() = LimitsUnder(*base, protection);
  v1::Hyperparameters hyper = asked.hyperparameters();
  CompleteHyperparameters(base->model().limits(), ids_.NewSeed(), &hyper);
  BALLAST_RETURN_IF_ERROR(
      Admit(hyper, *base, training, validation.has_value() ? &*validation : nullptr));
  if (!protection.has_value() && base->model().unprotected()) return UnprotectedNotAllowed();
  if (!protection.has_value()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_ACTIVE_VECTOR",
                     absl::StrCat(base->model().name(),
                                  " has no active security vector, and no job "
                                  "runs without one; ask the operator for one"),
                     {{"base_model", base->model().name()}});
  }

  JobRecord record;
  record.set_tenant(tenant);
  record.set_id(absl::StrCat("job-", ids_.NewId()));
  record.set_base_digest(base->model().digest());
  record.set_training_dataset_digest(training.dataset().digest());
  FineTuningJob& job = *record.mutable_job();
  job.set_name(JobName(tenant, record.id()));
  job.set_display_name(asked.display_name());
  job.set_base_model(asked.base_model());
  job.set_training_dataset(asked.training_dataset());
  job.set_validation_dataset(asked.validation_dataset());
  job.set_priority(asked.priority());
  *job.mutable_hyperparameters() = hyper;
  *job.mutable_labels() = asked.labels();
  job.set_state(FineTuningJob::QUEUED);
  *job.mutable_estimate() = EstimateJob(hyper, *base, training);
  if (!price_.currency_code().empty()) {
    *record.mutable_price_per_million_tokens() = price_;
    *job.mutable_estimate()->mutable_cost() = CostOf(price_, job.estimate().total_tokens());
  }
  *job.mutable_create_time() = ToTimestamp(now);
  return record;
}

absl::StatusOr<FineTuningJob> JobCatalog::Create(absl::Time now, const std::string& tenant,
                                                 const v1::CreateFineTuningJobRequest& request) {
  BALLAST_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  BALLAST_RETURN_IF_ERROR(CheckJobShape(request.fine_tuning_job()));
  FineTuningJob result;
  if (request.validate_only()) {
    BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const JobRecord record,
                               Compose(tx, now, tenant, request.fine_tuning_job()));
      result = record.job();
      // Nothing has been made, so there is no name, state or seed to rely on.
      result.clear_name();
      result.clear_state();
      result.clear_create_time();
      if (request.fine_tuning_job().hyperparameters().seed() == 0) {
        result.mutable_hyperparameters()->clear_seed();
      }
      return absl::OkStatus();
    }));
    return result;
  }
  v1::CreateFineTuningJobRequest payload = request;
  payload.clear_request_id();
  const std::string digest = PayloadDigest(payload);
  JobRecord record;
  bool created = false;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    created = false;
    BALLAST_ASSIGN_OR_RETURN(const std::string earlier,
                             FindEarlier(tx, tenant, request.request_id(), digest));
    if (!earlier.empty()) {
      BALLAST_ASSIGN_OR_RETURN(record, FindMade(tx, tenant, earlier));
    } else {
      BALLAST_RETURN_IF_ERROR(tx.Prefetch(RowsToCompose(tenant, request.fine_tuning_job())));
      BALLAST_ASSIGN_OR_RETURN(record, Compose(tx, now, tenant, request.fine_tuning_job()));
      BALLAST_RETURN_IF_ERROR(LineNew(tx, record, quotas_.Of(tenant), now));
      v1::JobEvent event;
      event.mutable_state_changed()->set_state(FineTuningJob::QUEUED);
      const EventRow row = NextEvent(record, std::move(event), now);
      record.mutable_job()->set_etag(absl::StrCat(record.last_event()));
      BALLAST_RETURN_IF_ERROR(InsertRecord(tx, record));
      BALLAST_RETURN_IF_ERROR(tx.AppendEvent(tenant, record.id(), row));
      BALLAST_RETURN_IF_ERROR(Remember(tx, tenant, request.request_id(), digest, record.id()));
      created = true;
    }
    WaitingView view(tx, tenant, serving_, quotas_, now);
    BALLAST_ASSIGN_OR_RETURN(result, ToJob(tx, record, view));
    return absl::OkStatus();
  }));
  if (created) PassKillPoint("server.job.created");
  if (created) listener_.WorkAdded();
  return result;
}

absl::StatusOr<FineTuningJob> JobCatalog::Get(absl::Time now, const std::string& tenant,
                                              const TenantName& name) {
  FineTuningJob job;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const JobRecord record, Find(tx, tenant, name));
    WaitingView view(tx, tenant, serving_, quotas_, now);
    BALLAST_ASSIGN_OR_RETURN(job, ToJob(tx, record, view, Start::kWithBounds));
    return absl::OkStatus();
  }));
  return job;
}

absl::StatusOr<FineTuningJob> JobCatalog::GetStored(const std::string& tenant,
                                                    const TenantName& name) {
  FineTuningJob job;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(JobRecord record, Find(tx, tenant, name));
    job = std::move(*record.mutable_job());
    return absl::OkStatus();
  }));
  return job;
}

absl::StatusOr<v1::ListFineTuningJobsResponse> JobCatalog::List(
    absl::Time now, const std::string& tenant, const v1::ListFineTuningJobsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t before, ParsePageToken("jobs", request.page_token()));
  v1::ListFineTuningJobsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    int64_t last = before;
    WaitingView view(tx, tenant, serving_, quotas_, now);
    while (true) {
      BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kJob, tenant, last, size + 1));
      for (const Row& row : rows) {
        BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<JobRecord>(row));
        if (record.deleted()) continue;
        if (response.fine_tuning_jobs_size() == size) {
          // There is one more than the page: the next one begins below the last row of this one.
          response.set_next_page_token(MakePageToken("jobs", last));
          return absl::OkStatus();
        }
        BALLAST_ASSIGN_OR_RETURN(*response.add_fine_tuning_jobs(), ToJob(tx, record, view));
        last = row.sequence;
      }
      if (static_cast<int>(rows.size()) <= size) return absl::OkStatus();
      last = rows.back().sequence;
    }
  }));
  return response;
}

absl::StatusOr<FineTuningJob> JobCatalog::Ask(absl::Time now, const std::string& tenant,
                                              const TenantName& name, WorkEvent event) {
  FineTuningJob job;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    // What changes nothing holds nothing: a row that is held is left out where its queue is
    // shifted.
    BALLAST_ASSIGN_OR_RETURN(JobRecord record, Find(tx, tenant, name));
    auto next = NextState(record.job().state(), event);
    if (!next.has_value()) return NotPossible(record.job(), event);
    WaitingView view(tx, tenant, serving_, quotas_, now);
    if (*next == record.job().state()) {
      BALLAST_ASSIGN_OR_RETURN(job, ToJob(tx, record, view));
      return absl::OkStatus();
    }
    if (event == WorkEvent::kResume) BALLAST_RETURN_IF_ERROR(HoldDatasets(tx, record));
    BALLAST_ASSIGN_OR_RETURN(record, Find(tx, tenant, name, Hold::kExclusive));
    next = NextState(record.job().state(), event);
    if (!next.has_value()) return NotPossible(record.job(), event);
    const bool waited = record.job().state() == FineTuningJob::QUEUED;
    const bool waits = *next == FineTuningJob::QUEUED;
    if (waited && !waits) BALLAST_RETURN_IF_ERROR(LeaveLine(tx, record));
    if (!waited && waits) {
      BALLAST_RETURN_IF_ERROR(Line(tx, record, quotas_.Of(tenant).weight, now));
    }
    BALLAST_RETURN_IF_ERROR(MoveJob(tx, record, event, {}, now));
    BALLAST_ASSIGN_OR_RETURN(job, ToJob(tx, record, view));
    return absl::OkStatus();
  }));
  PassKillPoint("server.job.asked");
  listener_.JobChanged(name.tenant, name.id);
  return job;
}

absl::StatusOr<FineTuningJob> JobCatalog::Cancel(absl::Time now, const std::string& tenant,
                                                 const TenantName& name) {
  auto job = Ask(now, tenant, name, WorkEvent::kCancel);
  if (job.ok()) listener_.GarbageAdded();
  return job;
}

absl::StatusOr<FineTuningJob> JobCatalog::Pause(absl::Time now, const std::string& tenant,
                                                const TenantName& name) {
  return Ask(now, tenant, name, WorkEvent::kPause);
}

absl::StatusOr<FineTuningJob> JobCatalog::Resume(absl::Time now, const std::string& tenant,
                                                 const TenantName& name) {
  auto job = Ask(now, tenant, name, WorkEvent::kResume);
  if (job.ok()) listener_.WorkAdded();
  return job;
}

absl::Status JobCatalog::Delete(const std::string& tenant, const TenantName& name,
                                const std::string& etag) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const JobRecord record, Find(tx, tenant, name, Hold::kExclusive));
    const FineTuningJob& job = record.job();
    if (!etag.empty() && etag != job.etag()) {
      return MakeError(
          absl::StatusCode::kAborted, "ETAG_MISMATCH",
          absl::StrCat(job.name(), " has changed since it was read; look at it again"));
    }
    if (job.state() == FineTuningJob::WITHHELD) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_WITHHELD",
                       absl::StrCat(job.name(),
                                    " is trained, and the operator decides on its "
                                    "delta; it can be deleted after that"));
    }
    if (!IsFinal(job.state())) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_ACTIVE",
                       absl::StrCat(job.name(), " is ", FineTuningJob::State_Name(job.state()),
                                    "; cancel it first"),
                       {{"state", FineTuningJob::State_Name(job.state())}});
    }
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(JobBlobs(record.tenant(), record.id())));
    // Its events go with it, and what is left is for operators: what it was trained under, and what
    // the gate has found.
    BALLAST_RETURN_IF_ERROR(tx.Delete(Kind::kJob, record.tenant(), record.id()));
    JobRecord rest = record;
    rest.set_deleted(true);
    rest.clear_delta_files();
    rest.mutable_job()->clear_display_name();
    rest.mutable_job()->clear_labels();
    return InsertRecord(tx, rest);
  }));
  listener_.JobChanged(name.tenant, name.id);
  listener_.GarbageAdded();
  return absl::OkStatus();
}

absl::StatusOr<v1::ListFineTuningJobEventsResponse> JobCatalog::ListEvents(
    const std::string& tenant, const v1::ListFineTuningJobEventsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(request.parent(), "parent"));
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size(), 100));
  if (request.after_sequence() < 0) {
    return FieldError("after_sequence", "CURSOR_INVALID", "after_sequence must not be negative");
  }
  v1::ListFineTuningJobEventsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(Find(tx, tenant, name).status());
    BALLAST_ASSIGN_OR_RETURN(const auto events,
                             tx.ListEvents(name.tenant, name.id, request.after_sequence(), size));
    for (const EventRow& event : events) {
      if (!response.add_events()->ParseFromString(event.bytes)) {
        return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                         "an event in the database is damaged; restore a backup");
      }
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<JobRecord> JobCatalog::GetDelta(const std::string& tenant, const TenantName& name) {
  std::optional<JobRecord> record;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    if (name.tenant == tenant) {
      BALLAST_ASSIGN_OR_RETURN(record, GetRecord<JobRecord>(tx, name.tenant, name.id));
    }
    return absl::OkStatus();
  }));
  if (!record.has_value() || record->deleted() ||
      record->job().state() != FineTuningJob::SUCCEEDED) {
    return MakeError(absl::StatusCode::kNotFound, "DELTA_NOT_FOUND",
                     absl::StrCat(DeltaName(name.tenant, name.id),
                                  " does not exist; a job has one once it has SUCCEEDED"));
  }
  return *std::move(record);
}

}  // namespace ballast::server
