// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/safety_rows_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/request_file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
SafetyRowsClient::SafetyRowsClient(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)),
      stub_(admin::v1::SafetyRowsService::NewStub(connection_->channel())) {}

std::string SafetyRowsClient::NameOf(std::string_view base_model) {
  return absl::StrCat(Client::BaseModelName(base_model), "/safetyRows");
}

absl::StatusOr<admin::v1::SafetyRows> SafetyRowsClient::Set(std::string_view base_model,
                                                            double share,
                                                            const std::string& path) const {
  admin::v1::SetSafetyRowsRequest request;
  request.set_name(NameOf(base_model));
  request.set_share(share);
  BALLAST_ASSIGN_OR_RETURN(*request.mutable_rows(),
                           ReadRequestFile("rows", "SAFETY_ROWS_TOO_LARGE", path));
  admin::v1::SafetyRows rows;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->SetSafetyRows(context, request, &rows);
  }));
  return rows;
}

absl::StatusOr<admin::v1::SafetyRows> SafetyRowsClient::Get(std::string_view base_model) const {
  admin::v1::GetSafetyRowsRequest request;
  request.set_name(NameOf(base_model));
  admin::v1::SafetyRows rows;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetSafetyRows(context, request, &rows);
  }));
  return rows;
}

absl::Status SafetyRowsClient::Remove(std::string_view base_model) const {
  admin::v1::RemoveSafetyRowsRequest request;
  request.set_name(NameOf(base_model));
  google::protobuf::Empty empty;
  return connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->RemoveSafetyRows(context, request, &empty);
  });
}

}  // namespace ballast::client
