// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_BASE_MODEL_CATALOG_H_
#define BALLAST_SERVER_CORE_BASE_MODEL_CATALOG_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/base_model_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// The base models that the operator has imported. Failures are those of ballast.v1.BaseModelService
// and AdminService.ImportBaseModel. Thread safety: thread-safe.
class BaseModelCatalog {
 public:
  // Both must outlive the catalog.
  BaseModelCatalog(JobStore& store, const ServingVectors& serving)
      : store_(store), serving_(serving) {}

  absl::StatusOr<v1::BaseModel> Get(const std::string& id);
  absl::StatusOr<v1::ListBaseModelsResponse> List(const v1::ListBaseModelsRequest& request);

  // The record; NOT_FOUND (BASE_MODEL_NOT_FOUND).
  absl::StatusOr<BaseModelRecord> GetRecordOf(const std::string& id);

  // FAILED_PRECONDITION (UNPROTECTED_NOT_ALLOWED) where the server takes no unprotected model.
  absl::Status CheckUnprotectedAllowed() const;

  // Before the files of a model with `digest` become blobs: writes the blobs down as garbage, which
  // they are until Add, unless a model has them already.
  absl::Status Expect(const std::string& digest);

  // Makes a model visible whose files are durable. The same id and digest again return the model
  // that is there; another digest, or the other protection, is ALREADY_EXISTS (BASE_MODEL_EXISTS).
  // Also fails as CheckUnprotectedAllowed.
  absl::StatusOr<v1::BaseModel> Add(const BaseModelRecord& record);

 private:
  absl::StatusOr<v1::BaseModel> ToModel(Transaction& tx, const BaseModelRecord& record) const;

  JobStore& store_;
  const ServingVectors& serving_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_BASE_MODEL_CATALOG_H_
