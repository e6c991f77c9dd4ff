// SPDX-License-Identifier: Apache-2.0
#include "server/api/safety_rows_service.h"

#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "server/api/audit.h"
#include "server/api/write_blob.h"
#include "server/core/operator_rows.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::SafetyRows;

constexpr int64_t kLeastRows = 16;

}  // namespace

absl::StatusOr<SafetyRows> SafetyRowsService::Set(absl::Time now,
                                                  const admin::v1::SetSafetyRowsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id, ParseSafetyRowsName(request.name(), "name"));
  SafetyRows rows;
  BALLAST_ASSIGN_OR_RETURN(const double share, CompleteSafetyShare(request.share()));
  rows.set_share(share);
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, parts_.models.GetRecordOf(base_id));
  BALLAST_ASSIGN_OR_RETURN(
      const v1::ValidationReport report,
      CheckOperatorRows(parts_.row_checks, base,
                        {"rows", "SAFETY_ROWS_INVALID", "SAFETY_ROWS_TOO_LARGE", kLeastRows},
                        request.rows()));
  rows.set_rows(report.rows_accepted());
  rows.set_longest_row_tokens(report.longest_row_tokens());
  rows.set_size_bytes(static_cast<int64_t>(request.rows().size()));

  const std::string blob = SafetyRowsBlob(base_id, parts_.ids.NewId());
  // A crash before the record names the blob must leave nothing for good.
  const UnnamedBlobs::Hold hold(parts_.unnamed, blob);
  BALLAST_RETURN_IF_ERROR(parts_.safety_rows.Expect(blob));
  BALLAST_ASSIGN_OR_RETURN(*rows.mutable_digest(), WriteBlob(parts_.blobs, blob, request.rows()));
  return parts_.safety_rows.Set(now, base_id, std::move(rows), blob);
}

grpc::ServerUnaryReactor* SafetyRowsService::SetSafetyRows(
    grpc::CallbackServerContext* context, const admin::v1::SetSafetyRowsRequest* request,
    SafetyRows* response) {
  return Unary(api_, "SafetyRowsService/SetSafetyRows", context, Allowed::kOperator, response,
               [this, request](const Principal& who, absl::Time now) -> absl::StatusOr<SafetyRows> {
                 BALLAST_ASSIGN_OR_RETURN(SafetyRows rows, Set(now, *request));
                 Audit(who, "set", rows.name(), rows.digest());
                 return rows;
               });
}

grpc::ServerUnaryReactor* SafetyRowsService::GetSafetyRows(
    grpc::CallbackServerContext* context, const admin::v1::GetSafetyRowsRequest* request,
    SafetyRows* response) {
  return Unary(api_, "SafetyRowsService/GetSafetyRows", context, Allowed::kOperator, response,
               [this, request](const Principal&, absl::Time) -> absl::StatusOr<SafetyRows> {
                 BALLAST_ASSIGN_OR_RETURN(const auto id,
                                          ParseSafetyRowsName(request->name(), "name"));
                 return parts_.safety_rows.Get(id);
               });
}

grpc::ServerUnaryReactor* SafetyRowsService::RemoveSafetyRows(
    grpc::CallbackServerContext* context, const admin::v1::RemoveSafetyRowsRequest* request,
    google::protobuf::Empty* response) {
  return Unary(
      api_, "SafetyRowsService/RemoveSafetyRows", context, Allowed::kOperator, response,
      [this, request](const Principal& who, absl::Time) -> absl::StatusOr<google::protobuf::Empty> {
        BALLAST_ASSIGN_OR_RETURN(const auto id, ParseSafetyRowsName(request->name(), "name"));
        BALLAST_RETURN_IF_ERROR(parts_.safety_rows.Remove(id));
        Audit(who, "removed", request->name(), "");
        return google::protobuf::Empty();
      });
}

}  // namespace ballast::server
