// SPDX-License-Identifier: Apache-2.0
// Compares NextState of vectors with the table of docs/vector_states.md, every state against every
// event.
#include "server/core/vector_state.h"

#include <string>

#include "gtest/gtest.h"
#include "server/testing/state_table.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;

// Events that only jobs have: no column of the table, and refused in every state.
bool OnlyJobsHave(WorkEvent event) {
  switch (event) {
    case WorkEvent::kTakenToScreen:
    case WorkEvent::kScreened:
    case WorkEvent::kStopped:
    case WorkEvent::kPaused:
    case WorkEvent::kCancel:
    case WorkEvent::kPause:
    case WorkEvent::kResume:
    case WorkEvent::kWithheld:
    case WorkEvent::kReleased:
    case WorkEvent::kRefused:
    case WorkEvent::kExpired:
      return true;
    default:
      return false;
  }
}

TEST(VectorStateTest, VectorsFollowTheTable) {
  const testing::StateTable table = testing::ReadStateTable("vector_states.md", "vector state");
  size_t pairs = 0;
  const auto follows = [&](Vector::State state, auto event) {
    const auto cell = table.find({Vector::State_Name(state), std::string(Name(event))});
    ASSERT_NE(cell, table.end()) << Vector::State_Name(state) << " x " << Name(event);
    const auto next = NextState(state, event);
    EXPECT_EQ(next.has_value() ? Vector::State_Name(*next) : "—", cell->second)
        << Vector::State_Name(state) << " x " << Name(event);
    ++pairs;
  };
  for (int i = Vector::DRAFT; i <= Vector::State_MAX; ++i) {
    const auto state = static_cast<Vector::State>(i);
    for (const WorkEvent event : kAllWorkEvents) {
      if (OnlyJobsHave(event)) {
        EXPECT_FALSE(NextState(state, event).has_value()) << Name(event);
      } else {
        follows(state, event);
      }
    }
    for (const VectorDecision decision : kAllVectorDecisions) follows(state, decision);
  }
  EXPECT_EQ(pairs, table.size()) << "the table has rows or columns that the code does not know";
  EXPECT_EQ(pairs, 6u * 12u);
}

TEST(VectorStateTest, FinalStatesAreNeverLeft) {
  for (const Vector::State state : {Vector::RETIRED, Vector::REJECTED}) {
    EXPECT_TRUE(IsFinal(state));
    for (const WorkEvent event : kAllWorkEvents) {
      EXPECT_FALSE(NextState(state, event).has_value()) << Name(event);
    }
    for (const VectorDecision decision : kAllVectorDecisions) {
      EXPECT_FALSE(NextState(state, decision).has_value()) << Name(decision);
    }
  }
  EXPECT_FALSE(IsFinal(Vector::ACTIVE));
}

TEST(VectorStateTest, NothingThatWorkersReportMakesAVectorServe) {
  for (int i = Vector::DRAFT; i <= Vector::State_MAX; ++i) {
    for (const WorkEvent event : kAllWorkEvents) {
      EXPECT_NE(NextState(static_cast<Vector::State>(i), event).value_or(Vector::DRAFT),
                Vector::ACTIVE)
          << Name(event);
    }
  }
}

}  // namespace
}  // namespace ballast::server
