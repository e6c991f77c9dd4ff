// SPDX-License-Identifier: Apache-2.0
#include "server/core/operator_rows.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

// A message has not much more than two of these.
constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr size_t kMaxViolations = 20;

// What the check found, as the answer.
absl::Status Answer(const v1::ValidationReport& report, const std::string& field,
                    const char* reason, int64_t least) {
  std::vector<std::pair<std::string, std::string>> violations;
  for (const v1::RowIssue& issue : report.issues()) {
    if (issue.warning() || violations.size() >= kMaxViolations) continue;
    violations.emplace_back(
        absl::StrCat(field, " line ", issue.line()),
        absl::StrCat(issue.field().empty() ? "" : issue.field() + ": ", issue.message()));
  }
  if (violations.empty() && report.rows_rejected() > 0) {
    violations.emplace_back(field, absl::StrCat(report.rows_rejected(), " rows are not right"));
  }
  if (violations.empty() && report.rows_accepted() < least) {
    violations.emplace_back(
        field, absl::StrCat("there are ", report.rows_accepted(), " rows; give at least ", least));
  }
  if (violations.empty()) return absl::OkStatus();
  return FieldErrors(reason, absl::StrCat(violations[0].first, ": ", violations[0].second),
                     violations);
}

}  // namespace

absl::StatusOr<v1::ValidationReport> CheckOperatorRows(RowChecks& checks,
                                                       const BaseModelRecord& base,
                                                       const OperatorRows& wanted,
                                                       const std::string& rows) {
  if (rows.size() > kMaxBytes) {
    return FieldError(wanted.field, wanted.reason_too_large,
                      absl::StrCat(wanted.field, " has ", rows.size(), " bytes; at most ",
                                   kMaxBytes, " are allowed"));
  }
  BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<RowCheck> check,
                           checks.Begin(base, v1::Dataset::FORMAT_UNSPECIFIED));
  BALLAST_RETURN_IF_ERROR(check->Feed(rows));
  BALLAST_ASSIGN_OR_RETURN(v1::ValidationReport report, check->Finish());
  BALLAST_RETURN_IF_ERROR(Answer(report, wanted.field, wanted.reason_invalid, wanted.least));
  return report;
}

}  // namespace ballast::server
