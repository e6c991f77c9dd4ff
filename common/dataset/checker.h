// SPDX-License-Identifier: Apache-2.0
// Row checks of a data set as its bytes arrive: every line becomes a chat row or an issue with line,
// field and reason. Used alike by the command line, the server and the worker.
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
#include "common/text/tokenizer.h"

namespace ballast::dataset {

// kAuto decides by the keys of each row.
enum class Format { kAuto, kOpenAiChat, kPromptCompletion, kAlpaca, kShareGpt };

// A row in the one form everything is turned into.
struct ChatRow {
  int64_t line = 0;  // 1-based line of the file
  std::vector<text::ChatMessage> messages;
};

// A row that was left out (severity error) or is suspicious (warning).
struct Issue {
  int64_t line = 0;
  std::string field;    // "messages[2].role", or empty for the whole line
  std::string reason;   // INVALID_JSON, INVALID_UTF8, UNKNOWN_FORMAT, MISSING_FIELD, WRONG_TYPE,
                        // UNKNOWN_ROLE, NO_ASSISTANT_TURN, EMPTY_CONTENT, DUPLICATE_ROW, TOO_LONG,
                        // LINE_TOO_LONG, ROLE_ORDER, WEIGHT_INVALID, SPECIAL_TOKEN_IN_CONTENT,
                        // TEMPLATE_FAILED, EMPTY_LINE (warning), BOM (warning), CRLF (warning)
  std::string message;  // says what to do; quotes no content of the row
  bool warning = false;
};

struct Report {
  int64_t lines = 0;
  int64_t rows_accepted = 0;
  int64_t rows_rejected = 0;
  std::map<std::string, int64_t> counts_by_reason;  // all issues, warnings too
  std::vector<Issue> issues;                        // the first max_issues
  bool issues_truncated = false;
  // Tokens of accepted rows.
  int64_t total_tokens = 0;
  int64_t supervised_tokens = 0;
  int64_t longest_row_tokens = 0;
  int64_t p50_row_tokens = 0, p90_row_tokens = 0, p99_row_tokens = 0;  // within 2 %
};

struct CheckOptions {
  Format format = Format::kAuto;
  int64_t max_line_bytes = 1 << 20;
  int64_t context_tokens = 8192;   // longer rows: TOO_LONG
  int64_t max_issues = 1000;
};

// Streaming: memory does not grow with the file, except 16 bytes a row for finding duplicates.
// Thread safety: not thread-safe.
class Checker {
 public:
  // Called for every accepted row in order; may be null.
  using RowSink = std::function<absl::Status(const ChatRow&, const text::SupervisedTokens&)>;

  // `text` must outlive the checker.
  Checker(const text::ModelText& text, const CheckOptions& options, RowSink sink);
  ~Checker();

  // The next bytes of the file, split anywhere. Fails only when the sink does.
  absl::Status Feed(std::string_view bytes);

  // After the last byte. The report, also when every row was rejected.
  absl::StatusOr<Report> Finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Turns one line (without its newline) into a chat row; the issue says why not. No tokenizer needed.
// Exposed for tests and for `dataset convert`.
struct ParsedLine {
  ChatRow row;
  std::vector<Issue> issues;  // empty, or warnings only: row is valid
};
ParsedLine ParseLine(std::string_view line, int64_t line_number, Format format);

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_CHECKER_H_
