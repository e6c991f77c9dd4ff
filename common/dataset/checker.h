// SPDX-License-Identifier: Apache-2.0
// Row checks of a data set as its bytes arrive: every line becomes a chat row or an issue with
// line, field and reason. Used alike by the command line, the server and the worker.
#ifndef BALLAST_COMMON_DATASET_CHECKER_H_
#define BALLAST_COMMON_DATASET_CHECKER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dataset/parse_line.h"
#include "common/text/tokenizer.h"

namespace ballast::dataset {

struct Report {
  int64_t lines = 0;
  int64_t rows_accepted = 0;
  int64_t rows_rejected = 0;
  std::map<std::string, int64_t> counts_by_reason;  // all issues, warnings too
  // The first max_issues. BOM, CRLF and UNKNOWN_FIELD are listed once, at their first line, and
  // counted.
  std::vector<Issue> issues;
  bool issues_truncated = false;
  // Tokens of accepted rows.
  int64_t total_tokens = 0;
  int64_t supervised_tokens = 0;
  int64_t longest_row_tokens = 0;
  int64_t p50_row_tokens = 0, p90_row_tokens = 0, p99_row_tokens = 0;  // within 2 %
  // Largest number of accepted rows that are the same but for case, white space and ASCII
  // punctuation. Rows that differ otherwise are not told to be alike.
  int64_t most_repeated_row = 0;
};

struct CheckOptions {
  Format format = Format::kAuto;
  int64_t max_line_bytes = 1 << 20;
  int64_t context_tokens = 8192;  // longer rows: TOO_LONG
  int64_t max_issues = 1000;
};

// Reasons that a row is rejected for, beside those of ParseLine: LINE_TOO_LONG, TOO_LONG,
// DUPLICATE_ROW, SPECIAL_TOKEN_IN_CONTENT, TEMPLATE_FAILED, TEMPLATE_LIMIT,
// TEMPLATE_NOT_PREFIX_STABLE, TOKENIZE_FAILED, NO_SUPERVISED_TOKENS. Warnings: BOM, CRLF,
// EMPTY_LINE.
//
// Streaming: memory does not grow with the file, except 28 bytes (and the room of hash tables) a
// row for finding duplicates. Thread safety: not thread-safe.
class Checker {
 public:
  // Called for every accepted row in order; may be null.
  using RowSink = std::function<absl::Status(const ChatRow&, const text::SupervisedTokens&)>;

  // `text` must outlive the checker.
  Checker(const text::ModelText& text, const CheckOptions& options, RowSink sink);
  ~Checker();

  // The next bytes of the file, split anywhere. Fails when the sink does, or when a row could not
  // be checked for a reason that is not the row's (any code of text::EncodeChat but
  // INVALID_ARGUMENT); the check is over then. Finish fails likewise.
  absl::Status Feed(std::string_view bytes);

  // After the last byte. The report, also when every row was rejected.
  absl::StatusOr<Report> Finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_CHECKER_H_
