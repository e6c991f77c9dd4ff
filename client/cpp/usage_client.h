// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_USAGE_CLIENT_H_
#define BALLAST_CLIENT_CPP_USAGE_CLIENT_H_

#include <memory>
#include <string>
#include <string_view>

#include "ballast/v1/usage_service.grpc.pb.h"
#include "client/cpp/connection.h"
#include "client/cpp/paged_range.h"

namespace ballast::client {

// What tenants have used. A tenant's key sees its own; an operator's any. Failures as in Client.
// Thread safety: thread-safe. Calls block.
class UsageClient {
 public:
  explicit UsageClient(std::shared_ptr<const Connection> connection);

  // By month, newest first.
  PagedRange<v1::MonthlyUsage> ListMonthlyUsage(std::string_view tenant) const;

 private:
  const std::shared_ptr<const Connection> connection_;
  const std::shared_ptr<v1::UsageService::StubInterface> stub_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_USAGE_CLIENT_H_
