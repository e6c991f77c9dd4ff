// SPDX-License-Identifier: Apache-2.0
// Failures of the machine that a server runs on: files, disk, database. Their text names paths of
// the server, which is for its log and for nobody else.
#ifndef BALLAST_SERVER_API_PLATFORM_FAULT_H_
#define BALLAST_SERVER_API_PLATFORM_FAULT_H_

#include <string>

#include "absl/status/status.h"

namespace ballast::server {

bool IsPlatformFault(const absl::Status& status);

// What a caller is told of a platform fault: its reason and what to do. RESOURCE_EXHAUSTED for
// DISK_FULL, DATA_LOSS for STORE_CORRUPT, which no waiting mends, UNAVAILABLE for all others.
absl::Status WithoutServerDetails(const absl::Status& fault);

// The reason of `status`, with the text where it is a platform fault: other texts may quote what
// belongs to a tenant.
std::string ForLog(const absl::Status& status);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_PLATFORM_FAULT_H_
