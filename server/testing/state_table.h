// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_STATE_TABLE_H_
#define BALLAST_SERVER_TESTING_STATE_TABLE_H_

#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast::server::testing {

// (state, event) -> cell.
using StateTable = std::map<std::pair<std::string, std::string>, std::string>;

// The table of docs/`page` whose header begins with `corner`. Needs BALLAST_SOURCE_DIR.
inline StateTable ReadStateTable(const std::string& page, const std::string& corner) {
  const char* source = std::getenv("BALLAST_SOURCE_DIR");
  EXPECT_NE(source, nullptr);
  const auto text = ReadFile(absl::StrCat(source == nullptr ? "." : source, "/docs/", page));
  EXPECT_OK(text);
  StateTable table;
  std::vector<std::string> events;
  for (const absl::string_view line : absl::StrSplit(text.value_or(""), '\n')) {
    std::vector<std::string> cells;
    for (const absl::string_view cell : absl::StrSplit(line, '|')) {
      cells.emplace_back(absl::StripAsciiWhitespace(cell));
    }
    // "| a | b |" splits into empty, a, b, empty.
    if (cells.size() > 2 && cells[1] == corner) {
      events.assign(cells.begin() + 2, cells.end() - 1);
    } else if (!events.empty() && cells.size() == events.size() + 3) {
      if (absl::StartsWith(cells[1], "---")) continue;
      for (size_t i = 0; i < events.size(); ++i) table[{cells[1], events[i]}] = cells[i + 2];
    } else {
      events.clear();
    }
  }
  return table;
}

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_STATE_TABLE_H_
