// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_SAFETY_ROWS_CATALOG_H_
#define BALLAST_SERVER_CORE_SAFETY_ROWS_CATALOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/safety_rows.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// `asked` with the default in place of 0. INVALID_ARGUMENT (SAFETY_SHARE_OUT_OF_RANGE).
absl::StatusOr<double> CompleteSafetyShare(double asked);

// The safety rows of base models. Failures are those of ballast.admin.v1.SafetyRowsService.
// Thread safety: thread-safe.
class SafetyRowsCatalog {
 public:
  // All must outlive the catalog.
  SafetyRowsCatalog(JobStore& store, ChangeListener& listener)
      : store_(store), listener_(listener) {}

  // Before the rows become the blob `blob`: writes it down as garbage, which it is until Set.
  absl::Status Expect(const std::string& blob);

  // Makes the rows in `blob` the base's. `rows` has all fields but name and set_time. The blob of
  // earlier ones becomes garbage.
  absl::StatusOr<admin::v1::SafetyRows> Set(absl::Time now, const std::string& base_id,
                                            admin::v1::SafetyRows rows, const std::string& blob);
  absl::StatusOr<admin::v1::SafetyRows> Get(const std::string& base_id);
  absl::Status Remove(const std::string& base_id);

 private:
  JobStore& store_;
  ChangeListener& listener_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_SAFETY_ROWS_CATALOG_H_
