// SPDX-License-Identifier: Apache-2.0
#include "server/core/dataset_catalog.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/status_macros.h"
#include "server/core/admission.h"
#include "server/core/dataset_rules.h"
#include "server/core/job_catalog.h"
#include "server/core/job_state.h"
#include "server/core/live_servers.h"
#include "server/core/paging.h"
#include "server/core/records.h"
#include "server/core/request_id.h"

namespace ballast::server {
namespace {

using v1::Dataset;

absl::Status CheckShape(const Dataset& dataset) {
  BALLAST_RETURN_IF_ERROR(CheckDisplayName(dataset.display_name(), "dataset.display_name"));
  if (!Dataset::Format_IsValid(dataset.format())) {
    return FieldError(
        "dataset.format", "FORMAT_UNKNOWN",
        "dataset.format is not one of the known formats; leave it out to have it decided "
        "row by row");
  }
  return absl::OkStatus();
}

// The name of a job that has not ended and reads the data set, if there is one.
absl::StatusOr<std::string> JobThatReads(Transaction& tx, const DatasetRecord& record) {
  std::string found;
  for (const auto state : kStatesThatReadData) {
    BALLAST_RETURN_IF_ERROR(
        ForEachInState<JobRecord>(tx, state, [&](const JobRecord& job) -> absl::StatusOr<bool> {
          if (job.job().training_dataset() == record.dataset().name() ||
              job.job().validation_dataset() == record.dataset().name()) {
            found = job.job().name();
          }
          return found.empty();
        }));
  }
  return found;
}

}  // namespace

absl::StatusOr<Dataset> DatasetCatalog::Create(absl::Time now, const std::string& tenant,
                                               const v1::CreateDatasetRequest& request) {
  BALLAST_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  BALLAST_RETURN_IF_ERROR(CheckShape(request.dataset()));
  BALLAST_ASSIGN_OR_RETURN(
      const std::string base_id,
      ParseBaseModelName(request.dataset().base_model(), "dataset.base_model"));
  v1::CreateDatasetRequest payload = request;
  payload.clear_request_id();
  const std::string digest = PayloadDigest(payload);
  DatasetRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const std::string earlier,
                             FindEarlier(tx, tenant, request.request_id(), digest));
    if (!earlier.empty()) {
      BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, {tenant, earlier}));
      return absl::OkStatus();
    }
    BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    record.Clear();
    record.set_tenant(tenant);
    record.set_id(absl::StrCat("ds-", ids_.NewId()));
    record.set_blob(DatasetBlob(tenant, record.id()));
    Dataset& dataset = *record.mutable_dataset();
    dataset.set_name(DatasetName(tenant, record.id()));
    dataset.set_display_name(request.dataset().display_name());
    dataset.set_base_model(request.dataset().base_model());
    dataset.set_format(request.dataset().format());
    dataset.set_tokenizer_digest(base->model().tokenizer_digest());
    dataset.set_template_digest(base->model().template_digest());
    *dataset.mutable_create_time() = ToTimestamp(now);
    SetDatasetState(record, Dataset::AWAITING_UPLOAD);
    BALLAST_RETURN_IF_ERROR(InsertRecord(tx, record));
    return Remember(tx, tenant, request.request_id(), digest, record.id());
  }));
  PassKillPoint("server.dataset.created");
  return record.dataset();
}

absl::StatusOr<DatasetRecord> DatasetCatalog::GetRecordOf(const std::string& tenant,
                                                          const TenantName& name) {
  DatasetRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindDataset(tx, tenant, name));
    return absl::OkStatus();
  }));
  return record;
}

absl::StatusOr<Dataset> DatasetCatalog::Get(const std::string& tenant, const TenantName& name) {
  BALLAST_ASSIGN_OR_RETURN(DatasetRecord record, GetRecordOf(tenant, name));
  return std::move(*record.mutable_dataset());
}

absl::StatusOr<v1::ListDatasetsResponse> DatasetCatalog::List(
    const std::string& tenant, const v1::ListDatasetsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t before, ParsePageToken("datasets", request.page_token()));
  v1::ListDatasetsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows,
                             tx.ListByScope(Kind::kDataset, tenant, before, size + 1));
    for (const Row& row : rows) {
      if (response.datasets_size() == size) {
        response.set_next_page_token(MakePageToken("datasets", rows[size - 1].sequence));
        break;
      }
      BALLAST_ASSIGN_OR_RETURN(auto record, FromRow<DatasetRecord>(row));
      if (record.dataset().has_report()) {
        record.mutable_dataset()->mutable_report()->clear_issues();
      }
      *response.add_datasets() = std::move(*record.mutable_dataset());
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::Status DatasetCatalog::Delete(const std::string& tenant, const TenantName& name,
                                    const std::string& etag) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(DatasetRecord record, FindDataset(tx, tenant, name, Hold::kExclusive));
    if (!etag.empty() && etag != record.dataset().etag()) {
      return MakeError(
          absl::StatusCode::kAborted, "ETAG_MISMATCH",
          absl::StrCat(record.dataset().name(),
                       " has changed since it was read; read it again and decide anew"));
    }
    BALLAST_RETURN_IF_ERROR(CheckUploadIsFree(tx, record));
    BALLAST_ASSIGN_OR_RETURN(const std::string job, JobThatReads(tx, record));
    if (!job.empty()) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "DATASET_IN_USE",
          absl::StrCat(job, " reads this data set; cancel it or wait until it has ended"),
          {{"job", job}});
    }
    BALLAST_RETURN_IF_ERROR(StrikeDirectUpload(tx, record));
    BALLAST_RETURN_IF_ERROR(tx.Delete(Kind::kDataset, record.tenant(), record.id()));
    return tx.AddGarbage(record.blob());
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<DatasetCatalog::ToValidate>> DatasetCatalog::FindToValidate(
    const std::set<std::string>& except) {
  std::optional<ToValidate> next;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    return ForEachInState<DatasetRecord>(
        tx, Dataset::VALIDATING, [&](DatasetRecord record) -> absl::StatusOr<bool> {
          if (except.count(record.dataset().name()) != 0) return true;
          BALLAST_ASSIGN_OR_RETURN(const bool elsewhere,
                                   IsAtAnotherServer(tx, record.checked_at()));
          if (elsewhere) return true;
          BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                                   ParseBaseModelName(record.dataset().base_model(), "base_model"));
          BALLAST_ASSIGN_OR_RETURN(auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
          if (!base.has_value()) return BaseModelNotFound(base_id);
          next = ToValidate{std::move(record), *std::move(base)};
          return false;
        });
  }));
  return next;
}

absl::StatusOr<std::optional<DatasetCatalog::ToValidate>> DatasetCatalog::NextToValidate(
    const std::set<std::string>& except) {
  while (true) {
    BALLAST_ASSIGN_OR_RETURN(auto next, FindToValidate(except));
    if (!next.has_value() || !store_.shared()) return next;
    bool taken = false;
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      taken = false;
      BALLAST_ASSIGN_OR_RETURN(
          auto record, GetRecord<DatasetRecord>(tx, next->dataset.tenant(), next->dataset.id(),
                                                Hold::kExclusive));
      if (!record.has_value() || record->dataset().state() != Dataset::VALIDATING) {
        return absl::OkStatus();
      }
      BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, record->checked_at()));
      if (elsewhere) return absl::OkStatus();
      taken = true;
      record->set_checked_at(store_.owner());
      return ReplaceRecord(tx, *record);
    }));
    if (taken) return next;
  }
}

absl::Status DatasetCatalog::GiveUpValidation(const ToValidate& taken) {
  if (!store_.shared()) return absl::OkStatus();
  return store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(
        auto record,
        GetRecord<DatasetRecord>(tx, taken.dataset.tenant(), taken.dataset.id(), Hold::kExclusive));
    if (!record.has_value() || record->checked_at() != store_.owner()) return absl::OkStatus();
    record->clear_checked_at();
    return ReplaceRecord(tx, *record);
  });
}

absl::Status DatasetCatalog::StoreReport(const ToValidate& checked,
                                         const v1::ValidationReport& report) {
  return store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(
        auto record, GetRecord<DatasetRecord>(tx, checked.dataset.tenant(), checked.dataset.id(),
                                              Hold::kExclusive));
    if (!record.has_value() || record->dataset().state() != Dataset::VALIDATING) {
      return absl::OkStatus();
    }
    // Another server checks it, which took this one for gone.
    if (store_.shared() && record->checked_at() != store_.owner()) return absl::OkStatus();
    record->clear_checked_at();
    *record->mutable_dataset()->mutable_report() = report;
    record->mutable_dataset()->set_tokenizer_digest(checked.base.model().tokenizer_digest());
    record->mutable_dataset()->set_template_digest(checked.base.model().template_digest());
    SetDatasetState(*record, report.rows_accepted() > 0 ? Dataset::READY : Dataset::INVALID);
    return ReplaceRecord(tx, *record);
  });
}

}  // namespace ballast::server
