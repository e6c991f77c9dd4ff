// SPDX-License-Identifier: Apache-2.0
// Reading and writing blobs by links, as workers and customers do.
#ifndef BALLAST_SERVER_TESTING_BY_LINK_H_
#define BALLAST_SERVER_TESTING_BY_LINK_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/blob_store.h"

namespace ballast::server::testing {

// Failures are those of HttpClient, for plain http, too.
absl::StatusOr<std::string> GetByLink(const std::string& url, int64_t offset, int64_t size_bytes);
absl::Status PutByLink(const std::string& url, const std::map<std::string, std::string>& headers,
                       const std::string& bytes);
// The whole blob; fails the test where the links have gaps.
absl::StatusOr<std::string> GetByLinks(const BlobLinks& links);

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_BY_LINK_H_
