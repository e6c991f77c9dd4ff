// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/grpc_status.h"

#include <string>

#include "absl/strings/match.h"
#include "common/base/utf8.h"

namespace ballast {
namespace {

constexpr char kStandardPayloads[] = "type.googleapis.com/";

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status result;
  result.set_code(static_cast<int>(status.code()));
  result.set_message(ValidUtf8(std::string(status.message())));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    auto* any = result.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
  });
  return result;
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.code()), status.message());
  for (const auto& any : status.details()) {
    if (absl::StartsWith(any.type_url(), kStandardPayloads)) {
      result.SetPayload(any.type_url(), absl::Cord(any.value()));
    }
  }
  return result;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      ToRpcStatus(status).SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  google::rpc::Status result;
  if (status.ok() || !result.ParseFromString(status.error_details())) result.clear_details();
  result.set_code(status.error_code());
  result.set_message(status.error_message());
  return FromRpcStatus(result);
}

}  // namespace ballast
