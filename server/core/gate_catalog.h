// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_GATE_CATALOG_H_
#define BALLAST_SERVER_CORE_GATE_CATALOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/gate.pb.h"
#include "common/behaviour/behaviour_set.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"

namespace ballast::server {

// `asked` with defaults in place of what is not given, scales sorted and each once; a scale that
// decides is not watched. INVALID_ARGUMENT (GATE_LIMITS_OUT_OF_RANGE) with each field.
absl::StatusOr<admin::v1::GateLimits> CompleteGateLimits(const admin::v1::GateLimits& asked);

// The gates of base models. Failures are those of ballast.admin.v1.GateService.
// Thread safety: thread-safe.
class GateCatalog {
 public:
  // All must outlive the catalog.
  GateCatalog(JobStore& store, ChangeListener& listener) : store_(store), listener_(listener) {}

  // Before a gate set becomes the blob `blob`: checks that the base is there and that every prompt
  // fits its context with any tokenizer, and writes the blob down as garbage, which it is until
  // Set.
  absl::Status Expect(const std::string& base_id, const behaviour::BehaviourSet& set,
                      const admin::v1::GateLimits& limits, const std::string& blob);

  // Makes the gate set in `blob` the base's gate, with complete limits. An earlier one's blob
  // becomes garbage.
  absl::StatusOr<admin::v1::Gate> Set(absl::Time now, const std::string& base_id,
                                      const behaviour::BehaviourSet& set,
                                      const admin::v1::GateLimits& limits, const std::string& blob,
                                      const std::string& digest, int64_t size_bytes);
  absl::StatusOr<admin::v1::Gate> Get(const std::string& base_id);
  absl::Status Remove(const std::string& base_id);

 private:
  JobStore& store_;
  ChangeListener& listener_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_GATE_CATALOG_H_
