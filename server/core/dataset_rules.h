// SPDX-License-Identifier: Apache-2.0
// What the two files of DatasetCatalog share: functions over a transaction and a record.
#ifndef BALLAST_SERVER_CORE_DATASET_RULES_H_
#define BALLAST_SERVER_CORE_DATASET_RULES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/dataset_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/resource_name.h"

namespace ballast::server {

// NOT_FOUND (DATASET_NOT_FOUND) for one that is not the tenant's, too.
absl::StatusOr<DatasetRecord> FindDataset(Transaction& tx, const std::string& tenant,
                                          const TenantName& name, Hold hold = Hold::kNone);

// Changes the etag, too.
void SetDatasetState(DatasetRecord& record, v1::Dataset::State state);

// OK when no other server has the upload. ABORTED (UPLOAD_IN_PROGRESS).
absl::Status CheckUploadIsFree(Transaction& tx, const DatasetRecord& record);

// Strikes the upload by links, if there is one, out of the record. What its links lead to is
// garbage now, and once more when they have ended, until when the tenant's record has it. The
// caller stores the data set's record in the same transaction.
absl::Status StrikeDirectUpload(Transaction& tx, DatasetRecord& record);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_DATASET_RULES_H_
