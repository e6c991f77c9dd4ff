// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_GATE_CLIENT_H_
#define BALLAST_CLIENT_CPP_GATE_CLIENT_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/gate_service.grpc.pb.h"
#include "client/cpp/connection.h"
#include "client/cpp/paged_range.h"

namespace ballast::client {

// An operator's calls about the gate: what is asked of trained deltas, what it withheld, and how
// tenants stand. Names of jobs and tenants are full ("tenants/acme/fineTuningJobs/job-1",
// "tenants/acme"): an operator has no tenant of their own. Failures as in Client; decisions are not
// repeated. Thread safety: thread-safe. Calls block.
class GateClient {
 public:
  explicit GateClient(std::shared_ptr<const Connection> connection);

  // "baseModels/<id>/gate" of an id or of "baseModels/<id>".
  static std::string GateName(std::string_view base_model);
  // "tenants/<id>" of an id; a full name stays as it is.
  static std::string TenantName(std::string_view tenant);

  // Reads the gate set from `path`; repeated on UNAVAILABLE, since setting twice is setting once.
  absl::StatusOr<admin::v1::Gate> SetGate(std::string_view base_model,
                                          const admin::v1::GateLimits& limits,
                                          const std::string& path) const;
  absl::StatusOr<admin::v1::Gate> GetGate(std::string_view base_model) const;
  absl::Status RemoveGate(std::string_view base_model) const;

  PagedRange<admin::v1::JobGate> ListWithheldJobs() const;
  absl::StatusOr<admin::v1::JobGate> GetGateReport(const std::string& job) const;
  absl::StatusOr<admin::v1::JobGate> ReleaseJob(const std::string& job,
                                                const std::string& reason) const;
  absl::StatusOr<admin::v1::JobGate> RefuseJob(const std::string& job,
                                               const std::string& reason) const;

  absl::StatusOr<admin::v1::TenantStanding> GetTenantStanding(std::string_view tenant) const;
  absl::StatusOr<admin::v1::TenantStanding> UnfreezeTenant(std::string_view tenant,
                                                           const std::string& reason) const;

 private:
  const std::shared_ptr<const Connection> connection_;
  const std::shared_ptr<admin::v1::GateService::StubInterface> stub_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_GATE_CLIENT_H_
