// SPDX-License-Identifier: Apache-2.0
#include "server/core/last_events.h"

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LastEventsTest : public CoreFixture {};

TEST_F(LastEventsTest, AreThoseThatAWatchWouldGet) {
  const std::string queued = CreateJob(), cancelled = CreateJob("other");
  Cancel(cancelled);
  ASSERT_OK_AND_ASSIGN(
      const auto last,
      LastEvents(store_, {cancelled, "tenants/acme/fineTuningJobs/nobodys", queued, "no name"}));
  EXPECT_THAT(last, ElementsAre(Events(cancelled).back().sequence(), std::nullopt,
                                Events(queued).back().sequence(), std::nullopt));
}

TEST_F(LastEventsTest, OfADeletedJobThereAreNone) {
  const std::string job = CreateJob();
  Cancel(job);
  ASSERT_OK(jobs_->Delete("acme", Parse(job), ""));
  ASSERT_OK_AND_ASSIGN(const auto last, LastEvents(store_, {job}));
  EXPECT_THAT(last, ElementsAre(std::nullopt));
}

TEST_F(LastEventsTest, NothingIsAskedForNothing) {
  ASSERT_OK_AND_ASSIGN(const auto last, LastEvents(store_, {}));
  EXPECT_THAT(last, IsEmpty());
}

}  // namespace
}  // namespace ballast::server::testing
