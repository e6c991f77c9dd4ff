// SPDX-License-Identifier: Apache-2.0
#include "server/core/job_protection.h"

#include "common/base/status_macros.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"

namespace ballast::server {

absl::StatusOr<admin::v1::JobProtection> FindJobProtection(JobStore& store,
                                                           const TenantName& name) {
  admin::v1::JobProtection protection;
  BALLAST_RETURN_IF_ERROR(store.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<JobRecord>(tx, name.tenant, name.id));
    if (!record.has_value()) return JobNotFound(name);
    protection.set_job(record->job().name());
    protection.set_state(record->job().state());
    if (!record->vector_id().empty()) protection.set_vector(VectorName(record->vector_id()));
    protection.set_protection_handle(record->protection_handle());
    protection.set_safety_rows_digest(record->safety_rows_given().rows().digest());
    protection.set_screen_digest(record->screen_given().screen().digest());
    protection.set_gate_digest(record->gate_given().digest());
    if (record->has_vector_use()) *protection.mutable_vector_use() = record->vector_use();
    return absl::OkStatus();
  }));
  return protection;
}

}  // namespace ballast::server
