// SPDX-License-Identifier: Apache-2.0
// Pages of lists (AIP-158). A token says only where a list goes on; it carries no authority, so a
// forged one shows nothing that its sender could not list anyway.
#ifndef BALLAST_SERVER_CORE_PAGING_H_
#define BALLAST_SERVER_CORE_PAGING_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast::server {

// Rows to list: `asked`, 50 for 0 (or `default_size`), 1000 above. INVALID_ARGUMENT
// (PAGE_SIZE_INVALID) below 0.
absl::StatusOr<int> PageSize(int32_t asked, int default_size = 50);

// Token for the rows after `position` in the list called `list`.
std::string MakePageToken(std::string_view list, int64_t position);

// The position; 0 for an empty token. INVALID_ARGUMENT (PAGE_TOKEN_INVALID).
absl::StatusOr<int64_t> ParsePageToken(std::string_view list, std::string_view token);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_PAGING_H_
