// SPDX-License-Identifier: Apache-2.0
#include "server/core/dataset_rules.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "server/core/dataset_catalog.h"
#include "server/core/job_catalog.h"
#include "server/core/live_servers.h"
#include "server/core/records.h"

namespace ballast::server {

absl::StatusOr<DatasetRecord> FindDataset(Transaction& tx, const std::string& tenant,
                                          const TenantName& name, Hold hold) {
  if (name.tenant != tenant) return DatasetNotFound(name);
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<DatasetRecord>(tx, name.tenant, name.id, hold));
  if (!record.has_value()) return DatasetNotFound(name);
  return *std::move(record);
}

void SetDatasetState(DatasetRecord& record, v1::Dataset::State state) {
  record.mutable_dataset()->set_state(state);
  record.mutable_dataset()->set_etag(absl::StrCat(static_cast<int>(state)));
}

absl::Status CheckUploadIsFree(Transaction& tx, const DatasetRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, record.written_at()));
  return elsewhere ? UploadInProgress(record.dataset().name()) : absl::OkStatus();
}

absl::Status StrikeDirectUpload(Transaction& tx, DatasetRecord& record) {
  if (!record.has_direct_upload()) return absl::OkStatus();
  BALLAST_RETURN_IF_ERROR(tx.AddGarbage(record.direct_upload().incoming()));
  record.clear_direct_upload();
  return absl::OkStatus();
}

}  // namespace ballast::server
