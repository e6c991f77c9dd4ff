// SPDX-License-Identifier: Apache-2.0
// Compares NextState with the tables of docs/job_states.md, every state against every event.
#include "server/core/job_state.h"

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

namespace ballast::server {
namespace {

// (state, event) -> cell, of the table whose header begins with `corner`.
using Table = std::map<std::pair<std::string, std::string>, std::string>;

Table ReadTable(const std::string& corner) {
  const char* source = std::getenv("BALLAST_SOURCE_DIR");
  EXPECT_NE(source, nullptr);
  const auto text = ReadFile(absl::StrCat(source == nullptr ? "." : source, "/docs/job_states.md"));
  EXPECT_OK(text);
  Table table;
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

TEST(JobStateTest, JobsFollowTheTable) {
  const Table table = ReadTable("job state");
  size_t pairs = 0;
  using v1::FineTuningJob;
  for (int i = FineTuningJob::SCREENING; i <= FineTuningJob::State_MAX; ++i) {
    const auto state = static_cast<FineTuningJob::State>(i);
    for (const WorkEvent event : kAllWorkEvents) {
      const auto cell = table.find({FineTuningJob::State_Name(state), std::string(Name(event))});
      ASSERT_NE(cell, table.end()) << FineTuningJob::State_Name(state) << " x " << Name(event);
      const auto next = NextState(state, event);
      EXPECT_EQ(next.has_value() ? FineTuningJob::State_Name(*next) : "—", cell->second)
          << FineTuningJob::State_Name(state) << " x " << Name(event);
      ++pairs;
    }
  }
  EXPECT_EQ(pairs, table.size()) << "the table has rows or columns that the code does not know";
  EXPECT_EQ(pairs, 10u * 14u);
}

TEST(JobStateTest, VectorsFollowTheTable) {
  const Table table = ReadTable("vector state");
  size_t pairs = 0;
  using admin::v1::Vector;
  for (int i = Vector::DRAFT; i <= Vector::State_MAX; ++i) {
    const auto state = static_cast<Vector::State>(i);
    for (const WorkEvent event : kAllWorkEvents) {
      const auto cell = table.find({Vector::State_Name(state), std::string(Name(event))});
      ASSERT_NE(cell, table.end()) << Vector::State_Name(state) << " x " << Name(event);
      const auto next = NextState(state, event);
      EXPECT_EQ(next.has_value() ? Vector::State_Name(*next) : "—", cell->second)
          << Vector::State_Name(state) << " x " << Name(event);
      ++pairs;
    }
  }
  EXPECT_EQ(pairs, table.size());
}

TEST(JobStateTest, FinalStatesAreNeverLeft) {
  using v1::FineTuningJob;
  for (int i = FineTuningJob::SCREENING; i <= FineTuningJob::State_MAX; ++i) {
    const auto state = static_cast<FineTuningJob::State>(i);
    if (!IsFinal(state)) continue;
    for (const WorkEvent event : kAllWorkEvents) {
      EXPECT_EQ(NextState(state, event).value_or(state), state);
    }
  }
}

}  // namespace
}  // namespace ballast::server
