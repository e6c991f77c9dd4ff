// SPDX-License-Identifier: Apache-2.0
// One line of a data set as a chat row. Needs no tokenizer: for what does need one, see checker.h.
#ifndef BALLAST_COMMON_DATASET_PARSE_LINE_H_
#define BALLAST_COMMON_DATASET_PARSE_LINE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/dataset/format.h"
#include "common/text/tokenizer.h"

namespace ballast::dataset {

// A row in the one form that every format is turned into.
struct ChatRow {
  int64_t line = 0;  // 1-based line of the file
  std::vector<text::ChatMessage> messages;
};

// Why a row was left out (or, as a warning, what is odd about it). docs/datasets.md lists the
// reasons with their remedies.
struct Issue {
  int64_t line = 0;
  std::string field;    // "messages[2].role"; empty for the whole line
  std::string reason;   // stable, UPPER_SNAKE
  std::string message;  // says what to do; never quotes the row
  bool warning = false;
};

struct ParsedLine {
  ChatRow row;
  std::vector<Issue> issues;  // empty or warnings only: the row is valid

  bool valid() const;
};

// Parses `line` (no newline in it) by `format`. Reasons: INVALID_UTF8, INVALID_JSON,
// NESTING_TOO_DEEP, DUPLICATE_KEY, NOT_AN_OBJECT, UNKNOWN_FORMAT, MISSING_FIELD, WRONG_TYPE,
// UNKNOWN_ROLE, WEIGHT_INVALID, TOOL_CALLS_UNSUPPORTED, EMPTY_CONTENT, ROLE_ORDER,
// NO_ASSISTANT_TURN, NO_SUPERVISED_TURN, and the warning UNKNOWN_FIELD. A row has at most one
// error: the first one met.
ParsedLine ParseLine(std::string_view line, int64_t line_number, Format format);

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_PARSE_LINE_H_
