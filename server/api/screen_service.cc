// SPDX-License-Identifier: Apache-2.0
#include "server/api/screen_service.h"

#include <utility>

#include "common/base/status_macros.h"
#include "server/api/audit.h"
#include "server/api/write_blob.h"
#include "server/core/operator_rows.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::Screen;

constexpr int64_t kLeastRows = 40;

}  // namespace

absl::StatusOr<admin::v1::ScreenRows> ScreenService::Check(const BaseModelRecord& base,
                                                           const char* field,
                                                           const std::string& rows) {
  BALLAST_ASSIGN_OR_RETURN(
      const v1::ValidationReport report,
      CheckOperatorRows(parts_.row_checks, base,
                        {field, "SCREEN_ROWS_INVALID", "SCREEN_ROWS_TOO_LARGE", kLeastRows}, rows));
  admin::v1::ScreenRows counts;
  counts.set_rows(report.rows_accepted());
  counts.set_longest_row_tokens(report.longest_row_tokens());
  counts.set_size_bytes(static_cast<int64_t>(rows.size()));
  return counts;
}

absl::StatusOr<Screen> ScreenService::Set(absl::Time now,
                                          const admin::v1::SetScreenRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id, ParseScreenName(request.name(), "name"));
  BALLAST_ASSIGN_OR_RETURN(const admin::v1::ScreenAction action,
                           CompleteScreenAction(request.action()));
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, parts_.models.GetRecordOf(base_id));
  Screen screen;
  screen.set_action(action);
  BALLAST_ASSIGN_OR_RETURN(*screen.mutable_prohibited(),
                           Check(base, "prohibited", request.prohibited()));
  BALLAST_ASSIGN_OR_RETURN(*screen.mutable_benign(), Check(base, "benign", request.benign()));

  const std::string prefix = ScreenBlobs(base_id, parts_.ids.NewId());
  // A crash before the record names the blobs must leave nothing for good.
  const UnnamedBlobs::Hold hold(parts_.unnamed, prefix);
  BALLAST_RETURN_IF_ERROR(parts_.screens.Expect(prefix));
  BALLAST_ASSIGN_OR_RETURN(
      *screen.mutable_prohibited()->mutable_digest(),
      WriteBlob(parts_.blobs, ScreenProhibitedBlob(prefix), request.prohibited()));
  BALLAST_ASSIGN_OR_RETURN(*screen.mutable_benign()->mutable_digest(),
                           WriteBlob(parts_.blobs, ScreenBenignBlob(prefix), request.benign()));
  return parts_.screens.Set(now, base_id, std::move(screen), prefix);
}

grpc::ServerUnaryReactor* ScreenService::SetScreen(grpc::CallbackServerContext* context,
                                                   const admin::v1::SetScreenRequest* request,
                                                   Screen* response) {
  return Unary(api_, "ScreenService/SetScreen", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<Screen> {
                 BALLAST_ASSIGN_OR_RETURN(Screen screen, Set(now, *request));
                 Audit(who, "set", screen.name(), screen.digest());
                 return screen;
               });
}

grpc::ServerUnaryReactor* ScreenService::GetScreen(grpc::CallbackServerContext* context,
                                                   const admin::v1::GetScreenRequest* request,
                                                   Screen* response) {
  return Unary(api_, "ScreenService/GetScreen", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<Screen> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id, ParseScreenName(request->name(), "name"));
                 return parts_.screens.Get(id);
               });
}

grpc::ServerUnaryReactor* ScreenService::RemoveScreen(grpc::CallbackServerContext* context,
                                                      const admin::v1::RemoveScreenRequest* request,
                                                      google::protobuf::Empty* response) {
  return Unary(
      api_, "ScreenService/RemoveScreen", context, Allowed::kOperator, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<google::protobuf::Empty> {
        BALLAST_ASSIGN_OR_RETURN(const auto id, ParseScreenName(request->name(), "name"));
        BALLAST_RETURN_IF_ERROR(parts_.screens.Remove(id));
        Audit(who, "removed", request->name(), "");
        return google::protobuf::Empty();
      });
}

}  // namespace ballast::server
