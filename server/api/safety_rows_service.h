// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SAFETY_ROWS_SERVICE_H_
#define BALLAST_SERVER_API_SAFETY_ROWS_SERVICE_H_

#include "ballast/admin/v1/safety_rows.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/base_model_catalog.h"
#include "server/core/blob_store.h"
#include "server/core/collaborators.h"
#include "server/core/row_checks.h"
#include "server/core/safety_rows_catalog.h"

namespace ballast::server {

// ballast.admin.v1.SafetyRowsService. Changes are written to the log, with the label of the key.
// Thread safety: thread-safe.
class SafetyRowsService : public admin::v1::SafetyRowsService::CallbackService {
 public:
  struct Parts {
    BaseModelCatalog& models;
    SafetyRowsCatalog& safety_rows;
    BlobStore& blobs;
    UnnamedBlobs& unnamed;
    RowChecks& row_checks;
    IdSource& ids;
  };

  // `api` and what `parts` refers to must outlive the service.
  SafetyRowsService(const ApiContext& api, const Parts& parts) : api_(api), parts_(parts) {}

  grpc::ServerUnaryReactor* SetSafetyRows(grpc::CallbackServerContext* context,
                                          const admin::v1::SetSafetyRowsRequest* request,
                                          admin::v1::SafetyRows* response) override;
  grpc::ServerUnaryReactor* GetSafetyRows(grpc::CallbackServerContext* context,
                                          const admin::v1::GetSafetyRowsRequest* request,
                                          admin::v1::SafetyRows* response) override;
  grpc::ServerUnaryReactor* RemoveSafetyRows(grpc::CallbackServerContext* context,
                                             const admin::v1::RemoveSafetyRowsRequest* request,
                                             google::protobuf::Empty* response) override;

 private:
  absl::StatusOr<admin::v1::SafetyRows> Set(absl::Time now,
                                            const admin::v1::SetSafetyRowsRequest& request);

  const ApiContext& api_;
  const Parts parts_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SAFETY_ROWS_SERVICE_H_
