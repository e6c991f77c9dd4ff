// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SCREEN_SERVICE_H_
#define BALLAST_SERVER_API_SCREEN_SERVICE_H_

#include <string>

#include "ballast/admin/v1/screen.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/base_model_catalog.h"
#include "server/core/blob_store.h"
#include "server/core/collaborators.h"
#include "server/core/row_checks.h"
#include "server/core/screen_catalog.h"

namespace ballast::server {

// ballast.admin.v1.ScreenService. Changes are written to the log, with the label of the key.
// Thread safety: thread-safe.
class ScreenService : public admin::v1::ScreenService::CallbackService {
 public:
  struct Parts {
    BaseModelCatalog& models;
    ScreenCatalog& screens;
    BlobStore& blobs;
    UnnamedBlobs& unnamed;
    RowChecks& row_checks;
    IdSource& ids;
  };

  // `api` and what `parts` refers to must outlive the service.
  ScreenService(const ApiContext& api, const Parts& parts) : api_(api), parts_(parts) {}

  grpc::ServerUnaryReactor* SetScreen(grpc::CallbackServerContext* context,
                                      const admin::v1::SetScreenRequest* request,
                                      admin::v1::Screen* response) override;
  grpc::ServerUnaryReactor* GetScreen(grpc::CallbackServerContext* context,
                                      const admin::v1::GetScreenRequest* request,
                                      admin::v1::Screen* response) override;
  grpc::ServerUnaryReactor* RemoveScreen(grpc::CallbackServerContext* context,
                                         const admin::v1::RemoveScreenRequest* request,
                                         google::protobuf::Empty* response) override;

 private:
  absl::StatusOr<admin::v1::Screen> Set(absl::Time now, const admin::v1::SetScreenRequest& request);
  // The counts of `rows`, which the request has in `field`.
  absl::StatusOr<admin::v1::ScreenRows> Check(const BaseModelRecord& base, const char* field,
                                              const std::string& rows);

  const ApiContext& api_;
  const Parts parts_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SCREEN_SERVICE_H_
