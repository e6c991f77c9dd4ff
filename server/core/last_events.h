// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_LAST_EVENTS_H_
#define BALLAST_SERVER_CORE_LAST_EVENTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/job_store.h"

namespace ballast::server {

// Sequence of the newest event of each of `jobs`, "tenants/*/fineTuningJobs/*", in their order, by
// one read of the store; empty for one that is not there, or not any more. Failures of the store.
absl::StatusOr<std::vector<std::optional<int64_t>>> LastEvents(
    JobStore& store, const std::vector<std::string>& jobs);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_LAST_EVENTS_H_
