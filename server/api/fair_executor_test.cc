// SPDX-License-Identifier: Apache-2.0
#include "server/api/fair_executor.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FairExecutorTest : public ::testing::Test {
 protected:
  // A task that writes down that it has run.
  std::function<void()> Note(const std::string& what) {
    return [this, what] {
      absl::MutexLock lock(&mutex_);
      ran_.push_back(what);
    };
  }
  std::vector<std::string> Ran() {
    absl::MutexLock lock(&mutex_);
    return ran_;
  }

  absl::Mutex mutex_;
  std::vector<std::string> ran_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(FairExecutorTest, TenantsTakeTurns) {
  FairExecutor threads;
  for (const char* task : {"a1", "a2", "a3"}) threads.Run("a", Note(task));
  for (const char* task : {"b1", "b2"}) threads.Run("b", Note(task));
  threads.Run("c", Note("c1"));
  threads.Start(1, 1);
  threads.Stop();
  EXPECT_THAT(Ran(), ElementsAre("a1", "b1", "c1", "a2", "b2", "a3"));
}

TEST_F(FairExecutorTest, OneTenantDoesNotHaveAllThreads) {
  FairExecutor threads;
  threads.Start(2, 1);
  absl::Notification begun, other_ran, first_may_end;
  threads.Run("a", [&] {
    begun.Notify();
    first_may_end.WaitForNotification();
  });
  threads.Run("a", Note("a2"));
  begun.WaitForNotification();
  threads.Run("b", [&] { other_ran.Notify(); });
  // The other's goes past one that has waited for longer, and that goes on waiting.
  other_ran.WaitForNotification();
  EXPECT_THAT(Ran(), IsEmpty());
  first_may_end.Notify();
  threads.Stop();
  EXPECT_THAT(Ran(), ElementsAre("a2"));
}

TEST_F(FairExecutorTest, StoppingRunsWhatWasGivenAndLaterTasksRunInTheCaller) {
  FairExecutor threads;
  threads.Start(2, 1);
  absl::Notification may_end;
  threads.Run("a", [&] { may_end.WaitForNotification(); });
  for (int i = 0; i < 3; ++i) threads.Run("a", Note("a"));
  std::thread stopper([&] { threads.Stop(); });
  may_end.Notify();
  stopper.join();
  EXPECT_THAT(Ran(), ElementsAre("a", "a", "a"));
  threads.Run("a", Note("late"));
  EXPECT_THAT(Ran(), ElementsAre("a", "a", "a", "late"));
}

}  // namespace
}  // namespace ballast::server
