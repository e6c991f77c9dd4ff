// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/gate_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/request_file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

constexpr int kPageSize = 100;

}  // namespace

GateClient::GateClient(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)),
      stub_(admin::v1::GateService::NewStub(connection_->channel())) {}

std::string GateClient::GateName(std::string_view base_model) {
  return absl::StrCat(Client::BaseModelName(base_model), "/gate");
}

std::string GateClient::TenantName(std::string_view tenant) {
  const bool full = tenant.find('/') != std::string_view::npos;
  return absl::StrCat(full ? "" : "tenants/", std::string(tenant));
}

absl::StatusOr<admin::v1::Gate> GateClient::SetGate(std::string_view base_model,
                                                    const admin::v1::GateLimits& limits,
                                                    const std::string& path) const {
  admin::v1::SetGateRequest request;
  request.set_name(GateName(base_model));
  *request.mutable_limits() = limits;
  BALLAST_ASSIGN_OR_RETURN(*request.mutable_gate_set(),
                           ReadRequestFile("gate_set", "GATE_SET_TOO_LARGE", path));
  admin::v1::Gate gate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(
      true, [&](grpc::ClientContext* context) { return stub_->SetGate(context, request, &gate); }));
  return gate;
}

absl::StatusOr<admin::v1::Gate> GateClient::GetGate(std::string_view base_model) const {
  admin::v1::GetGateRequest request;
  request.set_name(GateName(base_model));
  admin::v1::Gate gate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(
      true, [&](grpc::ClientContext* context) { return stub_->GetGate(context, request, &gate); }));
  return gate;
}

absl::Status GateClient::RemoveGate(std::string_view base_model) const {
  admin::v1::RemoveGateRequest request;
  request.set_name(GateName(base_model));
  google::protobuf::Empty empty;
  return connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->RemoveGate(context, request, &empty);
  });
}

PagedRange<admin::v1::JobGate> GateClient::ListWithheldJobs() const {
  using Range = PagedRange<admin::v1::JobGate>;
  return Range([connection = connection_,
                stub = stub_](const std::string& token) -> absl::StatusOr<Range::Page> {
    admin::v1::ListWithheldJobsRequest request;
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    admin::v1::ListWithheldJobsResponse response;
    BALLAST_RETURN_IF_ERROR(connection->Call(true, [&](grpc::ClientContext* context) {
      return stub->ListWithheldJobs(context, request, &response);
    }));
    return Range::Page{{response.jobs().begin(), response.jobs().end()},
                       response.next_page_token()};
  });
}

absl::StatusOr<admin::v1::JobGate> GateClient::GetGateReport(const std::string& job) const {
  admin::v1::GetGateReportRequest request;
  request.set_name(job);
  admin::v1::JobGate gate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetGateReport(context, request, &gate);
  }));
  return gate;
}

absl::StatusOr<admin::v1::JobGate> GateClient::ReleaseJob(const std::string& job,
                                                          const std::string& reason) const {
  admin::v1::ReleaseJobRequest request;
  request.set_name(job);
  request.set_reason(reason);
  admin::v1::JobGate gate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->ReleaseJob(context, request, &gate);
  }));
  return gate;
}

absl::StatusOr<admin::v1::JobGate> GateClient::RefuseJob(const std::string& job,
                                                         const std::string& reason) const {
  admin::v1::RefuseJobRequest request;
  request.set_name(job);
  request.set_reason(reason);
  admin::v1::JobGate gate;
  BALLAST_RETURN_IF_ERROR(connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->RefuseJob(context, request, &gate);
  }));
  return gate;
}

absl::StatusOr<admin::v1::TenantStanding> GateClient::GetTenantStanding(
    std::string_view tenant) const {
  admin::v1::GetTenantStandingRequest request;
  request.set_name(TenantName(tenant));
  admin::v1::TenantStanding standing;
  BALLAST_RETURN_IF_ERROR(connection_->Call(true, [&](grpc::ClientContext* context) {
    return stub_->GetTenantStanding(context, request, &standing);
  }));
  return standing;
}

absl::StatusOr<admin::v1::TenantStanding> GateClient::UnfreezeTenant(
    std::string_view tenant, const std::string& reason) const {
  admin::v1::UnfreezeTenantRequest request;
  request.set_name(TenantName(tenant));
  request.set_reason(reason);
  admin::v1::TenantStanding standing;
  BALLAST_RETURN_IF_ERROR(connection_->Call(false, [&](grpc::ClientContext* context) {
    return stub_->UnfreezeTenant(context, request, &standing);
  }));
  return standing;
}

}  // namespace ballast::client
