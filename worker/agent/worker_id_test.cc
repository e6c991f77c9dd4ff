// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/worker_id.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker::agent {
namespace {

using ::testing::MatchesRegex;

TEST(WorkerIdTest, TellsContainersWithOneLongNameApart) {
  const std::string shared(60, 'n');
  EXPECT_THAT(NewWorkerId(shared + "-pod7"), MatchesRegex("n{43}-pod7-[0-9a-f]{8}"));
  EXPECT_NE(NewWorkerId(shared), NewWorkerId(shared));
}

TEST(WorkerIdTest, HasAllowedCharactersOnly) {
  EXPECT_THAT(NewWorkerId("gpu_1.example\xc3\xa9"), MatchesRegex("gpu-1-example---[0-9a-f]{8}"));
  EXPECT_THAT(NewWorkerId(""), MatchesRegex("worker-[0-9a-f]{8}"));
  EXPECT_LE(NewWorkerId(std::string(500, 'x')).size(), 63u);
}

}  // namespace
}  // namespace ballast::worker::agent
