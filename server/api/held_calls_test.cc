// SPDX-License-Identifier: Apache-2.0
#include "server/api/held_calls.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/core_fixture.h"
#include "server/testing/sample_relay_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAreArray;
using worker::v1::SampleOrder;
using worker::v1::SynchronizeRequest;
using worker::v1::SynchronizeResponse;

class HeldCallsTest : public CoreFixture {
 protected:
  ballast::testing::FakeClock clock_;
};

TEST_F(HeldCallsTest, AWorkersCallBringsAnotherServersOrder) {
  store_.ShareForTest();
  SampleSide a(store_.ViewAsServerForTest("a"), clock_);
  SampleBroker broker;
  SampleRelay relay(store_, broker, clock_, nullptr);
  HeldCalls held(*plane_, broker, &relay);
  const auto idle = [&](const std::string& worker) {
    auto request = Request(worker);
    request.mutable_idle();
    return held.Answer(now_, request);
  };
  ASSERT_OK_AND_ASSIGN(auto answer, idle("w1"));
  EXPECT_EQ(answer.samples_size(), 0);
  EXPECT_FALSE(relay.MayHaveOffers());

  const auto submit = [&](SampleBroker& to, const std::string& id) {
    SampleOrder order;
    order.set_sample_id(id);
    ASSERT_OK(to.Submit(clock_.Now(), order, std::make_shared<RecordingSink>()));
  };
  submit(a.broker, "other");
  clock_.Advance(absl::Milliseconds(200));
  a.relay.RunOnceForTest();
  submit(broker, "own");
  relay.Heard();
  // Those here are first.
  ASSERT_OK_AND_ASSIGN(answer, idle("w1"));
  ASSERT_EQ(answer.samples_size(), 1);
  EXPECT_EQ(answer.samples(0).sample_id(), "own");
  ASSERT_OK_AND_ASSIGN(answer, idle("w1"));
  ASSERT_EQ(answer.samples_size(), 1);
  EXPECT_EQ(answer.samples(0).sample_id(), "other");
  ASSERT_OK_AND_ASSIGN(answer, idle("w1"));
  EXPECT_EQ(answer.samples_size(), 0);
}

// A store whose transactions are counted; before each update something else may happen.
class CountingStore : public JobStore {
 public:
  explicit CountingStore(JobStore& store) : store_(store) {}
  absl::Status Update(const Body& body) override {
    ++updates;
    if (const auto meanwhile = std::exchange(before_update, nullptr)) meanwhile();
    return store_.Update(body);
  }
  absl::Status Read(const Body& body) override { return store_.Read(body); }
  bool shared() const override { return store_.shared(); }
  const std::string& owner() const override { return store_.owner(); }

  int updates = 0;
  std::function<void()> before_update;

 private:
  JobStore& store_;
};

class FakeCall : public WorkerCall {
 public:
  explicit FakeCall(const std::string& worker) {
    request_.set_worker_id(worker);
    request_.mutable_idle();
  }
  const SynchronizeRequest& request() const override { return request_; }
  bool cancelled() const override { return gone; }
  void Answer(absl::StatusOr<SynchronizeResponse> response) override {
    EXPECT_FALSE(answer.has_value()) << "answered twice";
    answer = std::move(response);
  }

  // Name of the job that it got; empty for none.
  std::string job() const {
    if (!answer.has_value() || !answer->ok()) return "";
    return (*answer)->work().lease().resource();
  }

  bool gone = false;
  std::optional<absl::StatusOr<SynchronizeResponse>> answer;

 private:
  SynchronizeRequest request_;
};

// Calls of idle workers w0, w1, … that are held, the oldest first.
class DispatchTest : public CoreFixture {
 protected:
  void SetUp() override {
    CoreFixture::SetUp();
    ASSERT_OK_AND_ASSIGN(counted_plane_, ControlPlane::Create(counting_, ids_, listener_, serving_,
                                                              quotas_, {}, now_));
    held_.emplace(*counted_plane_, broker_);
  }

  void HoldCalls(int count) {
    for (int i = 0; i < count; ++i) {
      calls_.push_back(std::make_unique<FakeCall>(absl::StrCat("w", i)));
      Hold(calls_.back().get());
    }
  }
  void Hold(FakeCall* call) { held_->Hold(call, now_ + HeldCalls::kHold); }
  // Jobs that calls got, in the order of these.
  std::vector<std::string> Given() const {
    std::vector<std::string> given;
    for (const auto& call : calls_) {
      if (!call->job().empty()) given.push_back(call->job());
    }
    return given;
  }
  std::vector<std::string> CreateJobs(int count) {
    std::vector<std::string> jobs;
    for (int i = 0; i < count; ++i) {
      now_ += absl::Seconds(1);
      jobs.push_back(CreateJob());
    }
    return jobs;
  }

  CountingStore counting_{store_};
  std::unique_ptr<ControlPlane> counted_plane_;
  SampleBroker broker_;
  std::vector<std::unique_ptr<FakeCall>> calls_;
  std::optional<HeldCalls> held_;
};

TEST_F(DispatchTest, SeveralCallsGetWorkInOneTransaction) {
  HoldCalls(10);
  const auto jobs = CreateJobs(6);
  counting_.updates = 0;
  held_->Dispatch(now_);
  EXPECT_EQ(counting_.updates, 1);
  EXPECT_THAT(Given(), ElementsAreArray(jobs));
  // The oldest calls, and the others are held still.
  EXPECT_FALSE(calls_[5]->job().empty());
  EXPECT_EQ(held_->count(), 4);
  const auto more = CreateJobs(1);
  held_->Dispatch(now_);
  EXPECT_EQ(calls_[6]->job(), more[0]);
  EXPECT_EQ(held_->count(), 3);
}

TEST_F(DispatchTest, ManyCallsTakeAsFewTransactionsAsFit) {
  constexpr int kMost = static_cast<int>(ControlPlane::kMostAtOnce);
  HoldCalls(3 * kMost);
  const auto jobs = CreateJobs(2 * kMost - 1);
  counting_.updates = 0;
  held_->Dispatch(now_);
  EXPECT_EQ(counting_.updates, 2);
  EXPECT_THAT(Given(), ElementsAreArray(jobs));
  EXPECT_EQ(held_->count(), kMost + 1);
}

TEST_F(DispatchTest, NothingToDoLeavesTheOrderAsItWas) {
  HoldCalls(5);
  held_->Dispatch(now_);
  held_->Dispatch(now_);
  EXPECT_EQ(held_->count(), 5);
  const auto jobs = CreateJobs(2);
  held_->Dispatch(now_);
  EXPECT_EQ(calls_[0]->job(), jobs[0]);
  EXPECT_EQ(calls_[1]->job(), jobs[1]);
}

TEST_F(DispatchTest, HeartbeatsAreAnsweredWhileTheStoreIsWaitedFor) {
  CreateJobs(1);
  HoldCalls(1);
  held_->Dispatch(now_);
  ASSERT_FALSE(calls_[0]->job().empty());
  CreateJobs(1);
  FakeCall other("other");
  Hold(&other);
  SynchronizeRequest beat = Request("w0");
  *beat.mutable_busy()->mutable_lease() = (*calls_[0]->answer)->work().lease();
  bool beaten = false;
  counting_.before_update = [&] {
    const auto answer = counted_plane_->Synchronize(now_, beat);
    beaten = answer.ok() && answer->has_proceed();
    EXPECT_EQ(held_->count(), 0);
  };
  held_->Dispatch(now_);
  EXPECT_TRUE(beaten);
  EXPECT_FALSE(other.job().empty());
}

TEST_F(DispatchTest, OfTwoCallsOfAWorkerTheNewerIsHeld) {
  HoldCalls(2);
  FakeCall newer("w0");
  counting_.before_update = [&] { Hold(&newer); };
  held_->Dispatch(now_);
  ASSERT_TRUE(calls_[0]->answer.has_value());
  EXPECT_TRUE((*calls_[0]->answer)->has_idle());
  EXPECT_FALSE(newer.answer.has_value());
  EXPECT_FALSE(calls_[1]->answer.has_value());
  EXPECT_EQ(held_->count(), 2);
}

TEST_F(DispatchTest, WhoIsGoneIsNotGivenWork) {
  HoldCalls(3);
  calls_[0]->gone = true;
  const auto jobs = CreateJobs(1);
  // One goes while the store is waited for, and its call is not found to be dropped.
  counting_.before_update = [&] {
    calls_[2]->gone = true;
    held_->Drop(calls_[2].get());
  };
  held_->Dispatch(now_);
  EXPECT_THAT(*calls_[0]->answer, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(calls_[1]->job(), jobs[0]);
  EXPECT_THAT(*calls_[2]->answer, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(held_->count(), 0);
}

TEST_F(DispatchTest, ADrainMeanwhileAnswersAll) {
  HoldCalls(2);
  counting_.before_update = [&] { held_->Drain(); };
  held_->Dispatch(now_);
  for (const auto& call : calls_) {
    ASSERT_TRUE(call->answer.has_value());
    EXPECT_TRUE((*call->answer)->has_idle());
  }
  EXPECT_EQ(held_->count(), 0);
}

TEST_F(DispatchTest, AStaleCallHoldsUpNobody) {
  CreateJobs(1);
  SynchronizeRequest request = Request("w0");
  request.mutable_idle();
  ASSERT_OK_AND_ASSIGN(const auto first, counted_plane_->Synchronize(now_, request));
  SynchronizeRequest beat = Request("w0");
  *beat.mutable_busy()->mutable_lease() = first.work().lease();
  ASSERT_OK(counted_plane_->Synchronize(now_, beat));
  HoldCalls(2);  // w0's was made before
  const auto jobs = CreateJobs(1);
  held_->Dispatch(now_);
  EXPECT_THAT(*calls_[0]->answer, StatusIs(absl::StatusCode::kAborted, "CALL_STALE"));
  EXPECT_EQ(calls_[1]->job(), jobs[0]);
  ASSERT_OK_AND_ASSIGN(const auto after, counted_plane_->Synchronize(now_, beat));
  EXPECT_TRUE(after.has_proceed());
}

TEST_F(DispatchTest, AnAnswerThatWasLostIsGivenAgain) {
  const auto jobs = CreateJobs(2);
  SynchronizeRequest request = Request("w0");
  request.mutable_idle();
  ASSERT_OK_AND_ASSIGN(const auto lost, counted_plane_->Synchronize(now_, request));
  HoldCalls(2);
  held_->Dispatch(now_);
  EXPECT_EQ(calls_[0]->job(), lost.work().lease().resource());
  EXPECT_THAT(Given(), ElementsAreArray(jobs));
}

TEST_F(DispatchTest, WhileTheStoreIsAwayCallsEndWithThat) {
  HoldCalls(2);
  store_.FailNextCommitForTest(
      MakeError(absl::StatusCode::kUnavailable, "STORE_IO", "the store is away"));
  held_->Dispatch(now_);
  for (const auto& call : calls_) {
    ASSERT_TRUE(call->answer.has_value());
    EXPECT_THAT(*call->answer, StatusIs(absl::StatusCode::kUnavailable, "STORE_IO"));
  }
}

TEST_F(DispatchTest, OnASharedStoreWhatAnotherServerHasGivenIsKnown) {
  store_.ShareForTest();
  const auto jobs = CreateJobs(2);
  SynchronizeRequest request = Request("w0");
  request.mutable_idle();
  ASSERT_OK_AND_ASSIGN(const auto elsewhere, plane_->Synchronize(now_, request));
  HoldCalls(2);
  held_->Dispatch(now_);
  EXPECT_EQ(calls_[0]->job(), elsewhere.work().lease().resource());
  EXPECT_THAT(Given(), ElementsAreArray(jobs));
}

}  // namespace
}  // namespace ballast::server::testing
