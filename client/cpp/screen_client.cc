// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/screen_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/request_file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
ScreenClient::ScreenClient(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)),
      stub_(admin::v1::ScreenService::NewStub(connection_->channel())) {}

std::string ScreenClient::NameOf(std::string_view base_model) {
  return absl::StrCat(Client::BaseModelName(base_model), "/screen");
}

absl::StatusOr<admin::v1::Screen> ScreenClient::Set(std::string_view base_model,
                                                    admin::v1::ScreenAction action,
                                                    const std::string& prohibited_path,
                                                    const std::string& benign_path) const {
  admin::v1::SetScreenRequest request;
  request.set_name(NameOf(base_model));
  request.set_action(action);
  BALLAST_ASSIGN_OR_RETURN(*request.mutable_prohibited(),
                           ReadRequestFile("prohibited", "SCREEN_ROWS_TOO_LARGE", prohibited_path));
  BALLAST_ASSIGN_OR_RETURN(*request.mutable_benign(),
                           ReadRequestFile("benign", "SCREEN_ROWS_TOO_LARGE", benign_path));
  admin::v1::Screen screen;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->SetScreen(context, request, &screen);
  }));
  return screen;
}

absl::StatusOr<admin::v1::Screen> ScreenClient::Get(std::string_view base_model) const {
  admin::v1::GetScreenRequest request;
  request.set_name(NameOf(base_model));
  admin::v1::Screen screen;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetScreen(context, request, &screen);
  }));
  return screen;
}

absl::Status ScreenClient::Remove(std::string_view base_model) const {
  admin::v1::RemoveScreenRequest request;
  request.set_name(NameOf(base_model));
  google::protobuf::Empty empty;
  return connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->RemoveScreen(context, request, &empty);
  });
}

}  // namespace ballast::client
