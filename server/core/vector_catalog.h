// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_VECTOR_CATALOG_H_
#define BALLAST_SERVER_CORE_VECTOR_CATALOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/admin_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// Security vectors as operators see them. Failures are those of ballast.admin.v1.AdminService.
// Thread safety: thread-safe.
class VectorCatalog {
 public:
  // All must outlive the catalog.
  VectorCatalog(JobStore& store, ChangeListener& listener, const ServingVectors& serving)
      : store_(store), listener_(listener), serving_(serving) {}

  // Puts defaults in place of zeros and checks ranges, before rows are read: INVALID_ARGUMENT
  // (LEARNING_RATE_OUT_OF_RANGE, EPOCHS_OUT_OF_RANGE, LORA_RANK_OUT_OF_RANGE,
  // KL_WEIGHT_OUT_OF_RANGE, SEARCH_BUDGET_OUT_OF_RANGE).
  static absl::Status CompleteOptions(admin::v1::VectorOptions* options);

  // Before the rows of vector `id` become blobs: writes the blobs down as garbage, which they are
  // until Create.
  absl::Status Expect(const std::string& id);

  // Durable blobs that a vector is trained on: rows of both kinds, or topics.
  struct Data {
    std::string prohibited_blob, benign_blob, topics_blob;
  };
  // Queues the training of vector `id` (made by the caller, who named the blobs by it) with
  // complete options.
  absl::StatusOr<admin::v1::Vector> Create(absl::Time now, const std::string& id,
                                           const admin::v1::VectorOptions& options,
                                           const Data& data);
  absl::StatusOr<admin::v1::Vector> Get(const std::string& id);
  absl::StatusOr<admin::v1::ListVectorsResponse> List(const admin::v1::ListVectorsRequest& request);
  absl::StatusOr<admin::v1::Vector> Retire(const std::string& id);

 private:
  JobStore& store_;
  ChangeListener& listener_;
  const ServingVectors& serving_;
};

// The record of vector `id`. NOT_FOUND (VECTOR_NOT_FOUND).
absl::StatusOr<VectorRecord> FindVector(Transaction& tx, const std::string& id,
                                        Hold hold = Hold::kNone);

// The vector as operators see it: whether it is certified and why it does not serve are judged now,
// whatever was stored.
absl::StatusOr<admin::v1::Vector> ToVector(Transaction& tx, const VectorRecord& record,
                                           const ServingVectors& serving);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_VECTOR_CATALOG_H_
