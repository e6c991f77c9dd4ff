// SPDX-License-Identifier: Apache-2.0
// GoogleTest matchers for absl::Status and StatusOr: IsOk(), IsOkAndHolds(m), StatusIs(code),
// StatusIs(code, reason) where reason is the ErrorInfo reason.
#ifndef BALLAST_COMMON_BASE_TESTING_STATUS_MATCHERS_H_
#define BALLAST_COMMON_BASE_TESTING_STATUS_MATCHERS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "gmock/gmock.h"

namespace ballast::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P(StatusIs, code, "has the code " + absl::StatusCodeToString(code)) {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code;
}

MATCHER_P2(StatusIs, code, reason,
           "has the code " + absl::StatusCodeToString(code) + " and the reason " +
               ::testing::PrintToString(reason)) {
  *result_listener << GetStatus(arg).ToString() << ", reason " << ErrorReason(GetStatus(arg));
  return GetStatus(arg).code() == code && ErrorReason(GetStatus(arg)) == reason;
}

MATCHER_P(IsOkAndHolds, matcher, "is OK and holds a matching value") {
  if (!arg.ok()) {
    *result_listener << arg.status().ToString();
    return false;
  }
  return ::testing::ExplainMatchResult(matcher, *arg, result_listener);
}

#define EXPECT_OK(expr) EXPECT_THAT(expr, ::ballast::testing::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::ballast::testing::IsOk())

#define BALLAST_TEST_CONCAT_INNER(a, b) a##b
#define BALLAST_TEST_CONCAT(a, b) BALLAST_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(BALLAST_TEST_CONCAT(test_result_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL(result, lhs, expr) \
  auto result = (expr);                              \
  ASSERT_OK(result);                                 \
  lhs = *std::move(result)

}  // namespace ballast::testing

#endif  // BALLAST_COMMON_BASE_TESTING_STATUS_MATCHERS_H_
