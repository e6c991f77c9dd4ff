// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_SAFETY_ROWS_CLIENT_H_
#define BALLAST_CLIENT_CPP_SAFETY_ROWS_CLIENT_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/safety_rows.grpc.pb.h"
#include "client/cpp/connection.h"

namespace ballast::client {

// An operator's calls about the rows that are mixed into every job on a base model. Failures as in
// Client. Thread safety: thread-safe. Calls block.
class SafetyRowsClient {
 public:
  explicit SafetyRowsClient(std::shared_ptr<const Connection> connection);

  // "baseModels/<id>/safetyRows" of an id or of "baseModels/<id>".
  static std::string NameOf(std::string_view base_model);

  // Reads the rows from `path`; a share of 0 is the service's default. Repeated on UNAVAILABLE,
  // since setting twice is setting once.
  absl::StatusOr<admin::v1::SafetyRows> Set(std::string_view base_model, double share,
                                            const std::string& path) const;
  absl::StatusOr<admin::v1::SafetyRows> Get(std::string_view base_model) const;
  absl::Status Remove(std::string_view base_model) const;

 private:
  const std::shared_ptr<const Connection> connection_;
  const std::shared_ptr<admin::v1::SafetyRowsService::StubInterface> stub_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_SAFETY_ROWS_CLIENT_H_
