// SPDX-License-Identifier: Apache-2.0
// What a worker needs for what it was given. Functions over a transaction.
#ifndef BALLAST_SERVER_CORE_WORK_OF_H_
#define BALLAST_SERVER_CORE_WORK_OF_H_

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// What a record refers to by name. DATA_LOSS (STORE_CORRUPT) where it is missing: it is there as
// long as the record is.
absl::StatusOr<BaseModelRecord> BaseOf(Transaction& tx, const std::string& name,
                                       Hold hold = Hold::kNone);
absl::StatusOr<DatasetRecord> DatasetOf(Transaction& tx, const std::string& name,
                                        Hold hold = Hold::kNone);

// The work of a leased job or vector, as it was handed out.
absl::StatusOr<worker::v1::Work> WorkOf(Transaction& tx, const JobRecord& record);
absl::StatusOr<worker::v1::Work> WorkOf(Transaction& tx, const VectorRecord& record);

// A base model's files as workers see them.
worker::v1::BaseModelFiles FilesOf(const BaseModelRecord& base);

// The blobs that a worker needs for `work`.
std::set<std::string> BlobsOf(const worker::v1::Work& work);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_WORK_OF_H_
