// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_SCREEN_CLIENT_H_
#define BALLAST_CLIENT_CPP_SCREEN_CLIENT_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/screen.grpc.pb.h"
#include "client/cpp/connection.h"

namespace ballast::client {

// An operator's calls about the screening of data sets. Failures as in Client.
// Thread safety: thread-safe. Calls block.
class ScreenClient {
 public:
  explicit ScreenClient(std::shared_ptr<const Connection> connection);

  // "baseModels/<id>/screen" of an id or of "baseModels/<id>".
  static std::string NameOf(std::string_view base_model);

  // Reads the examples from two files; without an action it is the service's default. Repeated on
  // UNAVAILABLE, since setting twice is setting once.
  absl::StatusOr<admin::v1::Screen> Set(std::string_view base_model, admin::v1::ScreenAction action,
                                        const std::string& prohibited_path,
                                        const std::string& benign_path) const;
  absl::StatusOr<admin::v1::Screen> Get(std::string_view base_model) const;
  absl::Status Remove(std::string_view base_model) const;

 private:
  const std::shared_ptr<const Connection> connection_;
  const std::shared_ptr<admin::v1::ScreenService::StubInterface> stub_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_SCREEN_CLIENT_H_
