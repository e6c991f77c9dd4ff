// SPDX-License-Identifier: Apache-2.0
#include "client/cli/dataset_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/format.h"

namespace ballast::cli {

std::string DescribeReport(const v1::ValidationReport& report, size_t max_issues) {
  std::string text =
      absl::StrCat(FormatCount(report.lines()), " lines: ", FormatCount(report.rows_accepted()),
                   " rows accepted, ", FormatCount(report.rows_rejected()), " rejected\n");
  if (report.rows_accepted() > 0) {
    absl::StrAppend(&text, FormatCount(report.total_tokens()), " tokens, ",
                    FormatCount(report.supervised_tokens()), " of them trained on; a row has ",
                    FormatCount(report.p50_row_tokens()), " (median), ",
                    FormatCount(report.p90_row_tokens()), " (90 %), ",
                    FormatCount(report.p99_row_tokens()), " (99 %), ",
                    FormatCount(report.longest_row_tokens()), " (longest)\n");
    if (report.most_repeated_row() > 1) {
      absl::StrAppend(&text, FormatCount(report.most_repeated_row()),
                      " rows are the same but for case, white space and punctuation: each pass "
                      "counts that often\n");
    }
  }
  if (report.counts_by_reason().empty()) return text;

  std::vector<std::pair<std::string, int64_t>> counts(report.counts_by_reason().begin(),
                                                      report.counts_by_reason().end());
  std::sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  absl::StrAppend(&text, "\n");
  Table reasons({"COUNT", "REASON"});
  for (const auto& [reason, count] : counts) reasons.AddRow({FormatCount(count), reason});
  absl::StrAppend(&text, reasons.Render());

  const size_t shown = std::min<size_t>(max_issues, static_cast<size_t>(report.issues_size()));
  if (shown == 0) return text;
  absl::StrAppend(&text, "\n");
  Table issues({"LINE", "FIELD", "REASON", "WHAT TO DO"});
  for (size_t i = 0; i < shown; ++i) {
    const v1::RowIssue& issue = report.issues(static_cast<int>(i));
    issues.AddRow({absl::StrCat(issue.line()), issue.field().empty() ? "-" : issue.field(),
                   issue.warning() ? absl::StrCat(issue.reason(), " (warning)") : issue.reason(),
                   issue.message()});
  }
  absl::StrAppend(&text, issues.Render());
  const size_t kept = static_cast<size_t>(report.issues_size());
  if (shown < kept || report.issues_truncated()) {
    absl::StrAppend(&text, "… and ",
                    report.issues_truncated()
                        ? "more"
                        : absl::StrCat(FormatCount(static_cast<int64_t>(kept - shown)), " more"),
                    "; --max-issues shows more of them\n");
  }
  return text;
}

v1::ValidationReport ToProto(const dataset::Report& report) {
  v1::ValidationReport proto;
  proto.set_lines(report.lines);
  proto.set_rows_accepted(report.rows_accepted);
  proto.set_rows_rejected(report.rows_rejected);
  proto.mutable_counts_by_reason()->insert(report.counts_by_reason.begin(),
                                           report.counts_by_reason.end());
  for (const dataset::Issue& issue : report.issues) {
    v1::RowIssue* row = proto.add_issues();
    row->set_line(issue.line);
    row->set_field(issue.field);
    row->set_reason(issue.reason);
    row->set_message(issue.message);
    row->set_warning(issue.warning);
  }
  proto.set_issues_truncated(report.issues_truncated);
  proto.set_total_tokens(report.total_tokens);
  proto.set_supervised_tokens(report.supervised_tokens);
  proto.set_longest_row_tokens(report.longest_row_tokens);
  proto.set_p50_row_tokens(report.p50_row_tokens);
  proto.set_p90_row_tokens(report.p90_row_tokens);
  proto.set_p99_row_tokens(report.p99_row_tokens);
  proto.set_most_repeated_row(report.most_repeated_row);
  return proto;
}

}  // namespace ballast::cli
