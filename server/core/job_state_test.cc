// SPDX-License-Identifier: Apache-2.0
// Compares NextState with the table of docs/job_states.md, every state against every event.
#include "server/core/job_state.h"

#include <string>

#include "gtest/gtest.h"
#include "server/testing/state_table.h"

namespace ballast::server {
namespace {

TEST(JobStateTest, JobsFollowTheTable) {
  const testing::StateTable table = testing::ReadStateTable("job_states.md", "job state");
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
  EXPECT_EQ(pairs, 10u * 19u);
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
