// SPDX-License-Identifier: Apache-2.0
#include "server/core/operator_rows.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::server {
namespace {

constexpr size_t kMaxViolations = 20;

}  // namespace

absl::Status CheckOperatorRows(const v1::ValidationReport& report, const std::string& field,
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

}  // namespace ballast::server
