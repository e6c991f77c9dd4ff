// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_OPERATOR_ROWS_H_
#define BALLAST_SERVER_CORE_OPERATOR_ROWS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "ballast/v1/dataset_service.pb.h"
#include "server/core/record.pb.h"
#include "server/core/row_checks.h"

namespace ballast::server {

// What rows that an operator sends whole must be.
struct OperatorRows {
  const char* field;             // of the request
  const char* reason_invalid;    // of the failure when lines are wrong, or too few
  const char* reason_too_large;  // of the failure when there are more than 1 MiB
  int64_t least;                 // rows
};

// Checks `rows` for `base`; unlike a customer's, every line must be right. INVALID_ARGUMENT with
// the reasons of `wanted` and a violation for each bad line.
absl::StatusOr<v1::ValidationReport> CheckOperatorRows(RowChecks& checks,
                                                       const BaseModelRecord& base,
                                                       const OperatorRows& wanted,
                                                       const std::string& rows);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_OPERATOR_ROWS_H_
