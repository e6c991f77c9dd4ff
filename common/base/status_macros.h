// SPDX-License-Identifier: Apache-2.0
// BALLAST_RETURN_IF_ERROR and BALLAST_ASSIGN_OR_RETURN: early return on a failed absl::Status.
#ifndef BALLAST_COMMON_BASE_STATUS_MACROS_H_
#define BALLAST_COMMON_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BALLAST_RETURN_IF_ERROR(expr)                                 \
  do {                                                                \
    if (absl::Status ballast_status = (expr); !ballast_status.ok()) { \
      return ballast_status;                                          \
    }                                                                 \
  } while (false)

#define BALLAST_CONCAT_INNER(a, b) a##b
#define BALLAST_CONCAT(a, b) BALLAST_CONCAT_INNER(a, b)
#define BALLAST_ASSIGN_OR_RETURN(lhs, expr) \
  BALLAST_ASSIGN_OR_RETURN_IMPL(BALLAST_CONCAT(ballast_result_, __LINE__), lhs, expr)
#define BALLAST_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) {                                    \
    return std::move(result).status();                   \
  }                                                      \
  lhs = *std::move(result)

#endif  // BALLAST_COMMON_BASE_STATUS_MACROS_H_
