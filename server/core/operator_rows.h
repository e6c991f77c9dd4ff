// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_OPERATOR_ROWS_H_
#define BALLAST_SERVER_CORE_OPERATOR_ROWS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "ballast/v1/dataset_service.pb.h"

namespace ballast::server {

// What a check of rows that an operator sent in the request's field `field` found, as the answer:
// INVALID_ARGUMENT (`reason`) with a violation for each bad line, or when there are fewer than
// `least`. Unlike a customer's, every line must be right.
absl::Status CheckOperatorRows(const v1::ValidationReport& report, const std::string& field,
                               const char* reason, int64_t least);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_OPERATOR_ROWS_H_
