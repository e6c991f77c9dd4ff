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

TEST(VectorStateTest, VectorsFollowTheTable) {
  const testing::StateTable table = testing::ReadStateTable("vector_states.md", "vector state");
  size_t pairs = 0;
  for (int i = Vector::DRAFT; i <= Vector::State_MAX; ++i) {
    const auto state = static_cast<Vector::State>(i);
    for (const VectorEvent event : kAllVectorEvents) {
      const auto cell = table.find({Vector::State_Name(state), std::string(Name(event))});
      ASSERT_NE(cell, table.end()) << Vector::State_Name(state) << " x " << Name(event);
      const auto next = NextState(state, event);
      EXPECT_EQ(next.has_value() ? Vector::State_Name(*next) : "—", cell->second)
          << Vector::State_Name(state) << " x " << Name(event);
      ++pairs;
    }
  }
  EXPECT_EQ(pairs, table.size()) << "the table has rows or columns that the code does not know";
  EXPECT_EQ(pairs, 6u * 12u);
}

TEST(VectorStateTest, FinalStatesAreNeverLeft) {
  for (const Vector::State state : {Vector::RETIRED, Vector::REJECTED}) {
    EXPECT_TRUE(IsFinal(state));
    for (const VectorEvent event : kAllVectorEvents) {
      EXPECT_FALSE(NextState(state, event).has_value()) << Name(event);
    }
  }
  EXPECT_FALSE(IsFinal(Vector::ACTIVE));
}

TEST(VectorStateTest, NothingThatWorkersReportMakesAVectorServe) {
  for (int i = Vector::DRAFT; i <= Vector::State_MAX; ++i) {
    for (const WorkEvent event : kAllWorkEvents) {
      const auto vector_event = ToVectorEvent(event);
      if (!vector_event.has_value()) continue;
      EXPECT_NE(NextState(static_cast<Vector::State>(i), *vector_event).value_or(Vector::DRAFT),
                Vector::ACTIVE)
          << Name(event);
    }
  }
}

}  // namespace
}  // namespace ballast::server
