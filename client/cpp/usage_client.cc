// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/usage_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ballast::client {

UsageClient::UsageClient(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)),
      stub_(v1::UsageService::NewStub(connection_->channel())) {}

PagedRange<v1::MonthlyUsage> UsageClient::ListMonthlyUsage(std::string_view tenant) const {
  using Range = PagedRange<v1::MonthlyUsage>;
  return Range([connection = connection_, stub = stub_,
                parent = absl::StrCat("tenants/", std::string(tenant))](
                   const std::string& token) -> absl::StatusOr<Range::Page> {
    v1::ListMonthlyUsageRequest request;
    request.set_parent(parent);
    request.set_page_token(token);
    v1::ListMonthlyUsageResponse response;
    BALLAST_RETURN_IF_ERROR(connection->Call(true, [&](grpc::ClientContext* context) {
      return stub->ListMonthlyUsage(context, request, &response);
    }));
    return Range::Page{{response.months().begin(), response.months().end()},
                       response.next_page_token()};
  });
}

}  // namespace ballast::client
