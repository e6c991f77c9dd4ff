// SPDX-License-Identifier: Apache-2.0
// What watches read, and that it holds up nobody.
#include "server/api/job_watch.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/testing/server_fixture.h"
#include "server/testing/watching.h"

namespace ballast::server::testing {
namespace {

using v1::FineTuningJob;

// A store whose reads are counted, and can be held up.
class SlowStore : public JobStore {
 public:
  // Valid until the next call.
  void Be(JobStore& store) { store_ = &store; }

  absl::Status Update(const Body& body) override { return store_->Update(body); }
  absl::Status Read(const Body& body) override {
    ++reads;
    {
      absl::MutexLock lock(&mutex_);
      if (to_hold_up_ > 0) {
        --to_hold_up_;
        ++held_up_;
        mutex_.Await(absl::Condition(&goes_on_));
      }
    }
    return store_->Read(body);
  }
  bool shared() const override { return store_->shared(); }
  const std::string& owner() const override { return store_->owner(); }

  // The next reads last until GoOn.
  void HoldUp(int count) {
    absl::MutexLock lock(&mutex_);
    to_hold_up_ = count;
    held_up_ = 0;
    goes_on_ = false;
  }
  bool AwaitHeldUp(int count) {
    absl::MutexLock lock(&mutex_);
    const auto are_held_up = [&] {
      mutex_.AssertHeld();
      return held_up_ >= count;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&are_held_up), absl::Seconds(20));
  }
  void GoOn() {
    absl::MutexLock lock(&mutex_);
    to_hold_up_ = 0;
    goes_on_ = true;
  }

  std::atomic<int> reads = 0;

 private:
  JobStore* store_ = nullptr;
  absl::Mutex mutex_;
  int to_hold_up_ ABSL_GUARDED_BY(mutex_) = 0;
  int held_up_ ABSL_GUARDED_BY(mutex_) = 0;
  bool goes_on_ ABSL_GUARDED_BY(mutex_) = true;
};

class JobWatchTest : public ServerFixture {
 protected:
  JobWatchTest() { options_.watch_threads = 4; }
  void SetUp() override {
    ServerFixture::SetUp();
    MakeReady();
    dataset_ = UploadRows(40);
  }
  JobStore& ServerStore() override {
    slow_.Be(*store_);
    return slow_;
  }

  std::string NewJob() {
    const auto job = CreateJob(dataset_);
    EXPECT_OK(job);
    return job.ok() ? job->name() : "";
  }
  // As many as the tests need; each has got the job's first event.
  std::vector<std::unique_ptr<Watching>> Watch(const std::string& job, int count) {
    std::vector<std::unique_ptr<Watching>> watches;
    for (int i = 0; i < count; ++i) {
      watches.push_back(std::make_unique<Watching>(*jobs_, job, 0));
      EXPECT_EQ(watches.back()->NextEvent().sequence(), 1);
    }
    return watches;
  }
  // Puts an event into the store, and nobody is told: what is left of a server that died.
  void SayUnheard(const std::string& job, const std::string& message) {
    ASSERT_OK_AND_ASSIGN(const TenantName name, ParseJobName(job, "name"));
    ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
      auto record = GetRecord<JobRecord>(tx, name.tenant, name.id, Hold::kExclusive);
      v1::JobEvent event;
      event.set_message(message);
      const absl::Status appended = AppendJobEvent(tx, **record, event, clock_.Now());
      return appended.ok() ? ReplaceRecord(tx, **record) : appended;
    }));
  }

  std::string dataset_;
  SlowStore slow_;
};

TEST_F(JobWatchTest, TheStoreIsReadWhereTheJobHasChanged) {
  constexpr int kWatches = 20;
  const std::string name = NewJob();
  ASSERT_OK_AND_ASSIGN(const auto work, Idle("w"));
  auto watches = Watch(name, kWatches);
  // Each has read what there is, and rests.
  for (const auto& watch : watches) EXPECT_EQ(watch->NextEvent().sequence(), 2);
  ASSERT_OK(Busy("w", work.work().lease(), 1));
  clock_.Advance(absl::Seconds(1));
  server_->TickForTest();
  for (const auto& watch : watches) EXPECT_EQ(watch->NextProgress().step(), 1);

  slow_.reads = 0;
  constexpr int kSeconds = 3;
  for (int i = 0; i < kSeconds; ++i) {
    ASSERT_OK(Busy("w", work.work().lease(), 2 + i));
    clock_.Advance(absl::Seconds(1));
    server_->TickForTest();
  }
  for (const auto& watch : watches) {
    while (watch->NextProgress().step() < kSeconds + 1) {
    }
  }
  // A heartbeat's, the gauges', and those of looks: none is a watch's.
  EXPECT_LT(slow_.reads.load(), kWatches);
  ASSERT_OK(Cancel(name));
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->NextEvent().state_changed().state(), FineTuningJob::CANCELLING);
  }
}

TEST_F(JobWatchTest, AChangeThatNobodyHasToldOfIsSeenWithinSeconds) {
  const std::string name = NewJob();
  auto watches = Watch(name, 2);
  SayUnheard(name, "first");
  clock_.Advance(WatchHub::kLookPeriod);
  server_->TickForTest();
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->NextEvent().message(), "first");
  }
  SayUnheard(name, "second");
  SayUnheard(name, "third");
  clock_.Advance(WatchHub::kLookPeriod);
  server_->TickForTest();
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->NextEvent().message(), "second");
    EXPECT_EQ(watch->NextEvent().message(), "third");
  }
}

TEST_F(JobWatchTest, AJobThatIsGoneEndsItsWatches) {
  const std::string name = NewJob();
  auto watches = Watch(name, 1);
  ASSERT_OK_AND_ASSIGN(const TenantName parsed, ParseJobName(name, "name"));
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    const auto record =
        GetRecord<JobRecord>(tx, parsed.tenant, parsed.id, Hold::kExclusive).status();
    return record.ok() ? tx.Delete(Kind::kJob, parsed.tenant, parsed.id) : record;
  }));
  clock_.Advance(WatchHub::kLookPeriod);
  server_->TickForTest();
  EXPECT_EQ(watches[0]->NextEvent().sequence(), 0);
  EXPECT_THAT(watches[0]->Finish(),
              ballast::testing::StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
}

TEST_F(JobWatchTest, HeartbeatsAreAnsweredWhileWatchesWaitForTheStore) {
  const std::string name = NewJob();
  ASSERT_OK_AND_ASSIGN(const auto work, Idle("w"));
  auto watches = Watch(name, 2 * options_.watch_threads);
  for (const auto& watch : watches) EXPECT_EQ(watch->NextEvent().sequence(), 2);
  // As many as there are threads for other calls, too.
  slow_.HoldUp(4);
  std::thread owner([&] { EXPECT_OK(Pause(name)); });
  EXPECT_TRUE(slow_.AwaitHeldUp(4));
  const auto answer = Busy("w", work.work().lease(), 1);
  EXPECT_TRUE(answer.ok() && answer->has_stop()) << answer.status();
  slow_.GoOn();
  owner.join();
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->NextEvent().state_changed().state(), FineTuningJob::PAUSING);
  }
}

}  // namespace
}  // namespace ballast::server::testing
