// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_JOB_PROTECTION_H_
#define BALLAST_SERVER_CORE_JOB_PROTECTION_H_

#include "absl/status/statusor.h"
#include "ballast/admin/v1/job_protection.pb.h"
#include "server/core/job_store.h"
#include "server/core/resource_name.h"

namespace ballast::server {

// What protects a job, for operators only. NOT_FOUND (JOB_NOT_FOUND).
absl::StatusOr<admin::v1::JobProtection> FindJobProtection(JobStore& store, const TenantName& name);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_JOB_PROTECTION_H_
