// SPDX-License-Identifier: Apache-2.0
// Idempotent creation (AIP-155): a request_id seen before returns what it made then.
#ifndef BALLAST_SERVER_CORE_REQUEST_ID_H_
#define BALLAST_SERVER_CORE_REQUEST_ID_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "server/core/job_store.h"

namespace ballast::server {

// INVALID_ARGUMENT (REQUEST_ID_INVALID) unless empty or 1 to 64 letters, digits and "-".
absl::Status CheckRequestId(std::string_view request_id);

// Digest of a request whose request_id the caller has cleared. The same on every machine.
std::string PayloadDigest(const google::protobuf::Message& request);

// Id of what an earlier request made; empty for a new one or without a request_id. ALREADY_EXISTS
// (REQUEST_ID_REUSED) when the earlier one had another payload.
absl::StatusOr<std::string> FindEarlier(Transaction& tx, std::string_view tenant,
                                        std::string_view request_id, std::string_view digest);

// Remembers what the request made. Without a request_id nothing is kept.
absl::Status Remember(Transaction& tx, std::string_view tenant, std::string_view request_id,
                      std::string_view digest, std::string_view result_id);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_REQUEST_ID_H_
