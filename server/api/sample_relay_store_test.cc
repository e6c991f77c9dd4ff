// SPDX-License-Identifier: Apache-2.0
// SampleRelay where the store fails, or others change the records in between.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/api/sample_relay.h"
#include "server/testing/sample_relay_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

using SampleRelayStoreTest = SampleRelayFixture;

// A store in which another server is quicker: what was listed has been taken before it is held.
class QuickerServer : public JobStore {
 public:
  QuickerServer(std::unique_ptr<JobStore> store, std::function<void()> take)
      : store_(std::move(store)), take_(std::move(take)) {}
  absl::Status Update(const Body& body) override {
    if (take_ != nullptr) std::exchange(take_, nullptr)();
    return store_->Update(body);
  }
  absl::Status Read(const Body& body) override { return store_->Read(body); }
  bool shared() const override { return true; }
  const std::string& owner() const override { return store_->owner(); }

 private:
  const std::unique_ptr<JobStore> store_;
  std::function<void()> take_;
};

TEST_F(SampleRelayStoreTest, WhatAnotherServerHasTakenMeanwhileIsLeftToIt) {
  Offer("s1");
  Offer("s2");
  SampleSide late(std::make_unique<QuickerServer>(
                      store_.ViewAsServerForTest("c"),
                      [&] { EXPECT_EQ(Take(b_, "w1", 1), std::vector<std::string>{"s1"}); }),
                  clock_);
  EXPECT_EQ(Take(late, "w2", 1), std::vector<std::string>{"s2"});
}

// A store that lets a server's thread run between the end of a transaction and what its caller does
// then.
class InterruptedStore : public JobStore {
 public:
  InterruptedStore(std::unique_ptr<JobStore> store, std::function<void()>& interrupt)
      : store_(std::move(store)), interrupt_(interrupt) {}
  absl::Status Update(const Body& body) override {
    const absl::Status status = store_->Update(body);
    if (interrupt_ != nullptr) std::exchange(interrupt_, nullptr)();
    return status;
  }
  absl::Status Read(const Body& body) override { return store_->Read(body); }
  bool shared() const override { return true; }
  const std::string& owner() const override { return store_->owner(); }

 private:
  const std::unique_ptr<JobStore> store_;
  std::function<void()>& interrupt_;
};

TEST_F(SampleRelayStoreTest, TakingAnOrderOnceMoreAndWritingMayMeet) {
  for (const bool take_first : {true, false}) {
    std::function<void()> interrupt;
    SampleSide side(std::make_unique<InterruptedStore>(store_.ViewAsServerForTest("c"), interrupt),
                    clock_);
    const std::string id = take_first ? "s1" : "s2";
    Offer(id);
    EXPECT_EQ(Take(side, "w1"), std::vector<std::string>{id});
    Pass(absl::Milliseconds(200));
    Pass(absl::Seconds(30));
    Pass(absl::Milliseconds(200));
    ASSERT_OK(Return(side, "w1", id, "late"));
    const auto take = [&] { EXPECT_EQ(Take(side, "w2"), std::vector<std::string>{id}); };
    const auto write = [&] { side.relay.RunOnceForTest(); };
    interrupt = take_first ? std::function<void()>(write) : take;
    take_first ? take() : write();
    ASSERT_OK(Return(side, "w2", id, "one", "stop"));
    side.relay.RunOnceForTest();
    Pass(absl::Milliseconds(200));
    EXPECT_THAT(sink_->pieces, ElementsAre("one"));
    EXPECT_OK(sink_->end.value());
  }
}

TEST_F(SampleRelayStoreTest, WhatIsBeingTakenBackIsNotOfferedAgain) {
  std::function<void()> interrupt;
  SampleSide side(std::make_unique<InterruptedStore>(store_.ViewAsServerForTest("c"), interrupt),
                  clock_);
  SubmitTo(side, "s1");
  clock_.Advance(absl::Milliseconds(200));
  side.relay.RunOnceForTest();
  ASSERT_EQ(Records().size(), 1U);
  interrupt = [&] { side.relay.RunOnceForTest(); };
  EXPECT_EQ(Take(side, "w1"), std::vector<std::string>{"s1"});
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayStoreTest, AStoreThatFailsIsTriedAgain) {
  Submit("s1");
  store_.FailNextCommitForTest(absl::UnavailableError("no network"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Records(), IsEmpty());
  // Whether the offer was made is not known.
  store_.LoseNextAnswerForTest();
  Pass(absl::Milliseconds(200));
  Pass(absl::Milliseconds(200));
  EXPECT_EQ(Records().size(), 1U);
  store_.FailNextCommitForTest(absl::UnavailableError("no network"));
  EXPECT_THAT(b_.relay.TakeOffers(clock_.Now(), "w1", 1, ""), StatusIs(kUnavailable));
  EXPECT_EQ(Take(b_, "w1"), std::vector<std::string>{"s1"});
  // No piece is lost, and none comes twice.
  ASSERT_OK(Return(b_, "w1", "s1", "one"));
  store_.FailNextCommitForTest(absl::UnavailableError("no network"));
  Pass(absl::Milliseconds(200));
  ASSERT_OK(Return(b_, "w1", "s1", "two"));
  store_.LoseNextAnswerForTest();
  Pass(absl::Milliseconds(200));
  ASSERT_OK(Return(b_, "w1", "s1", "three", "stop"));
  store_.LoseNextAnswerForTest();
  Pass(absl::Milliseconds(200));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("one", "two", "three"));
  EXPECT_OK(sink_->end.value());
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayStoreTest, AStoreThatHasLostTheRecordsGetsOffersAgain) {
  Offer("s1");
  DeleteRecord("a", "s1");
  Pass(absl::Milliseconds(200));
  EXPECT_EQ(Take(b_, "w1"), std::vector<std::string>{"s1"});
  Pass(absl::Milliseconds(200));
  // What was being answered is not begun anew.
  DeleteRecord("a", "s1");
  Pass(absl::Milliseconds(200));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "WORKER_LOST"));
}

// Fails the test when it is used.
class UnusedStore : public JobStore {
 public:
  absl::Status Update(const Body&) override { return Used(); }
  absl::Status Read(const Body&) override { return Used(); }
  const std::string& owner() const override { return owner_; }

 private:
  static absl::Status Used() {
    ADD_FAILURE() << "the store is used";
    return absl::InternalError("used");
  }
  const std::string owner_ = "alone";
};

TEST_F(SampleRelayStoreTest, AServerAloneUsesNoStore) {
  SampleSide alone(std::make_unique<UnusedStore>(), clock_, &bulletin_);
  alone.relay.Start();
  SubmitTo(alone, "s1");
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(alone.relay.Enter(clock_.Now(), /*idle=*/true));
  alone.relay.RunOnceForTest();
  alone.relay.Heard();
  EXPECT_FALSE(alone.relay.MayHaveOffers());
  EXPECT_THAT(Take(alone, "w1"), IsEmpty());
  EXPECT_TRUE(alone.broker.HasWaiting());
  alone.relay.Stop();
  EXPECT_THAT(bulletin_.posted, IsEmpty());
}

}  // namespace
}  // namespace ballast::server::testing
