// SPDX-License-Identifier: Apache-2.0
// Orders of one server and workers of another.
#include "server/api/sample_relay.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/sample_relay_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using worker::v1::SampleOrder;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kCancelled = absl::StatusCode::kCancelled;

using SampleRelayTest = SampleRelayFixture;

TEST_F(SampleRelayTest, AnotherServersWorkerAnswers) {
  Offer("s1");
  ASSERT_THAT(bulletin_.posted, ElementsAre(Notice{Notice::Kind::kSampleOffered, ""}));
  EXPECT_EQ(Take(b_, "w1"), std::vector<std::string>{"s1"});
  EXPECT_OK(b_.broker.CheckReadable(clock_.Now(), "s1", "w1", "blob-of-the-base"));
  EXPECT_THAT(b_.broker.CheckReadable(clock_.Now(), "s1", "w1", "another"),
              StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
  EXPECT_THAT(b_.broker.CheckReadable(clock_.Now(), "s1", "w2", "blob-of-the-base"),
              StatusIs(kCancelled, "SAMPLE_GONE"));
  ASSERT_OK(Return(b_, "w1", "s1", "one"));
  ASSERT_OK(Return(b_, "w1", "s1", "two"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("one", "two"));
  EXPECT_FALSE(sink_->end.has_value());
  // Both servers know the prompt; the record has it no longer.
  ASSERT_EQ(Records().size(), 1U);
  EXPECT_THAT(Records()[0].SerializeAsString(), Not(HasSubstr("secret")));
  ASSERT_OK(Return(b_, "w1", "s1", "three"));
  ASSERT_OK(Return(b_, "w1", "s1", "", "stop"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("one", "two", "three", ""));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_OK(*sink_->end);
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, WhatAWorkerHereTakesIsNotOffered) {
  Submit("s1");
  Pass(absl::Milliseconds(199));
  EXPECT_THAT(Records(), IsEmpty());
  EXPECT_EQ(a_.broker.Take(clock_.Now(), "w1", 1).size(), 1U);
  Pass(absl::Seconds(1));
  EXPECT_THAT(Records(), IsEmpty());
  EXPECT_THAT(Take(b_, "w2"), IsEmpty());
}

TEST_F(SampleRelayTest, ErrorsArriveWithTheirReason) {
  Offer("s1");
  Take(b_, "w1");
  worker::v1::ReturnSampleRequest message;
  message.mutable_error()->set_kind(v1::JobError::USER);
  message.mutable_error()->set_reason("PROMPT_TOO_LONG");
  message.mutable_error()->set_message("the chat has 9000 tokens");
  ASSERT_OK(b_.broker.Return(clock_.Now(), "s1", "w1", message));
  Pass(absl::Milliseconds(200));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG"));
  EXPECT_EQ(sink_->end->message(), "the chat has 9000 tokens");
  EXPECT_TRUE(sink_->end->GetPayload(kBadRequestUrl).has_value());
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, ABrokenReplyIsToldAtOnce) {
  Offer("s1");
  Take(b_, "w1");
  ASSERT_OK(Return(b_, "w1", "s1", "half"));
  b_.broker.Ended("s1", "w1");
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("half"));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "WORKER_LOST"));
}

TEST_F(SampleRelayTest, TheOtherServersWorkerHearsThatNobodyWaits) {
  Offer("s1");
  Take(b_, "w1");
  ASSERT_OK(Return(b_, "w1", "s1", "one"));
  Pass(absl::Milliseconds(200));
  a_.broker.Cancel("s1");
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Records(), IsEmpty());
  ASSERT_OK(Return(b_, "w1", "s1", "two"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Return(b_, "w1", "s1", "three"), StatusIs(kCancelled, "SAMPLE_GONE"));
  EXPECT_THAT(sink_->pieces, ElementsAre("one"));
}

TEST_F(SampleRelayTest, OneServerGetsAnOrder) {
  Offer("s1");
  Offer("s2");
  Offer("s3");
  EXPECT_EQ(Take(b_, "w1", 1), std::vector<std::string>{"s1"});
  EXPECT_THAT(Take(c_, "w2"), ElementsAre("s2", "s3"));
  EXPECT_THAT(Take(b_, "w1"), IsEmpty());
  EXPECT_THAT(Take(a_, "w3"), IsEmpty());
}

TEST_F(SampleRelayTest, AWorkerWithABaseGetsOffersForItOnly) {
  Offer("s1", "sha256:a");
  Offer("s2", "sha256:b");
  EXPECT_THAT(Take(b_, "w1", 1, "sha256:c"), IsEmpty());
  EXPECT_TRUE(b_.relay.MayHaveOffers());
  EXPECT_EQ(Take(b_, "w1", 1, "sha256:b"), std::vector<std::string>{"s2"});
  EXPECT_EQ(Take(b_, "w1", 1, ""), std::vector<std::string>{"s1"});
}

TEST_F(SampleRelayTest, SaysWhenNobodyTakesAnOrder) {
  Submit("s1");
  for (int i = 0; i < 19; ++i) Pass(absl::Seconds(1));
  EXPECT_FALSE(sink_->end.has_value());
  Pass(absl::Seconds(1));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "NO_WORKER"));
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, AnOrderWithoutASignOfLifeWaitsOnceMore) {
  Offer("s1");
  Take(b_, "w1");
  Pass(absl::Milliseconds(200));
  Pass(absl::Seconds(29));
  EXPECT_THAT(Take(c_, "w2"), IsEmpty());
  Pass(absl::Seconds(1));
  Pass(absl::Milliseconds(200));
  EXPECT_EQ(Take(c_, "w2"), std::vector<std::string>{"s1"});
  // The first one wakes up.
  ASSERT_OK(Return(b_, "w1", "s1", "late"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Return(b_, "w1", "s1", "late"), StatusIs(kCancelled, "SAMPLE_GONE"));
  EXPECT_THAT(sink_->pieces, IsEmpty());
  // Not for ever.
  Pass(absl::Seconds(30));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "WORKER_LOST"));
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, AServerMayTakeAnOrderOnceMore) {
  Offer("s1");
  Take(b_, "w1");
  Pass(absl::Milliseconds(200));
  Pass(absl::Seconds(30));
  Pass(absl::Milliseconds(200));
  ASSERT_OK(Return(b_, "w1", "s1", "late"));
  EXPECT_EQ(Take(b_, "w2"), std::vector<std::string>{"s1"});
  EXPECT_THAT(Return(b_, "w1", "s1", "late"), StatusIs(kCancelled, "SAMPLE_GONE"));
  ASSERT_OK(Return(b_, "w2", "s1", "one", "stop"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("one"));
  EXPECT_OK(sink_->end.value());
}

TEST_F(SampleRelayTest, WhatIsWrittenBetweenTwoOffersIsOfNoUse) {
  Offer("s1");
  Take(b_, "w1");
  Pass(absl::Milliseconds(200));
  clock_.Advance(absl::Seconds(30));
  // Given up, while at the other server the first word comes.
  EXPECT_TRUE(a_.broker.Sweep(clock_.Now()));
  ASSERT_OK(Return(b_, "w1", "s1", "late"));
  b_.relay.RunOnceForTest();
  clock_.Advance(absl::Milliseconds(200));
  a_.relay.RunOnceForTest();
  EXPECT_THAT(sink_->pieces, IsEmpty());
  a_.relay.RunOnceForTest();
  EXPECT_EQ(Take(c_, "w2"), std::vector<std::string>{"s1"});
  ASSERT_OK(Return(c_, "w2", "s1", "one", "stop"));
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("one"));
  EXPECT_OK(sink_->end.value());
}

TEST_F(SampleRelayTest, AServerThatDiesInTheMiddleLosesTheOrder) {
  Offer("s1");
  SampleSide dying(store_.ViewAsServerForTest("d"), clock_);
  Take(dying, "w1");
  ASSERT_OK(Return(dying, "w1", "s1", "half"));
  dying.relay.RunOnceForTest();
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(sink_->pieces, ElementsAre("half"));
  for (int i = 0; i < 119; ++i) Pass(absl::Seconds(1));
  EXPECT_FALSE(sink_->end.has_value());
  Pass(absl::Seconds(1));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "WORKER_LOST"));
}

TEST_F(SampleRelayTest, AnOrderWhoseServerIsGoneIsGivenUp) {
  Offer("s1");
  Take(b_, "w1");
  clock_.Advance(absl::Seconds(39));
  EXPECT_FALSE(b_.broker.Sweep(clock_.Now()));
  EXPECT_OK(b_.broker.CheckReadable(clock_.Now(), "s1", "w1", "blob-of-the-base"));
  Offer("s2");
  Take(b_, "w1");
  clock_.Advance(absl::Seconds(40));
  EXPECT_FALSE(b_.broker.Sweep(clock_.Now()));
  EXPECT_FALSE(b_.broker.HasWaiting());
  EXPECT_OK(Sign(b_, "w1", "s1"));
  EXPECT_THAT(Sign(b_, "w1", "s2"), StatusIs(kCancelled, "SAMPLE_GONE"));
}

TEST_F(SampleRelayTest, SignsOfLifeArrive) {
  Offer("s1");
  Take(b_, "w1");
  // Long before the first word.
  for (int i = 0; i < 200; ++i) {
    ASSERT_OK(Sign(b_, "w1", "s1"));
    Pass(absl::Seconds(1));
  }
  EXPECT_FALSE(sink_->end.has_value());
  // They are not written one by one.
  ASSERT_EQ(Records().size(), 1U);
  EXPECT_LT(Records()[0].sign(), 50);
  EXPECT_GT(Records()[0].sign(), 30);
  ASSERT_OK(Return(b_, "w1", "s1", "at last", "stop"));
  Pass(absl::Milliseconds(200));
  EXPECT_OK(sink_->end.value());
}

TEST_F(SampleRelayTest, AWorkerThatIsFreeLaterTakesItsOwnServersOffer) {
  Offer("s1");
  EXPECT_FALSE(a_.broker.HasWaiting());
  EXPECT_TRUE(a_.relay.MayHaveOffers());
  EXPECT_EQ(Take(a_, "w1"), std::vector<std::string>{"s1"});
  EXPECT_THAT(Records(), IsEmpty());
  EXPECT_THAT(Take(b_, "w2"), IsEmpty());
  ASSERT_OK(Return(a_, "w1", "s1", "hi", "stop"));
  EXPECT_OK(sink_->end.value());
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, OtherServersOrdersDoNotCountHere) {
  for (int i = 0; i < 8; ++i) Offer(absl::StrCat("s", i));
  EXPECT_EQ(Take(b_, "w1", 8).size(), 8U);
  SampleOrder order;
  order.set_sample_id("own");
  order.mutable_request()->set_parent("tenants/acme");
  EXPECT_OK(b_.broker.Submit(clock_.Now(), order, std::make_shared<RecordingSink>()));
  // Where they were asked they do.
  EXPECT_THAT(a_.broker.Submit(clock_.Now(), order, std::make_shared<RecordingSink>()),
              StatusIs(absl::StatusCode::kResourceExhausted, "TOO_MANY_SAMPLES"));
}

TEST_F(SampleRelayTest, LooksOnlyWhenThereMayBeSomething) {
  Take(b_, "w1");
  EXPECT_FALSE(b_.relay.MayHaveOffers());
  b_.relay.Heard();
  EXPECT_TRUE(b_.relay.MayHaveOffers());
  Take(b_, "w1");
  EXPECT_FALSE(b_.relay.MayHaveOffers());
  // A notice may be missed.
  const absl::Time now = clock_.Now();
  EXPECT_FALSE(b_.relay.Enter(now, /*idle=*/false));
  EXPECT_FALSE(b_.relay.MayHaveOffers());
  EXPECT_TRUE(b_.relay.Enter(now, /*idle=*/true));
  EXPECT_TRUE(b_.relay.MayHaveOffers());
  EXPECT_FALSE(b_.relay.Enter(now + absl::Milliseconds(1999), /*idle=*/true));
  EXPECT_TRUE(b_.relay.Enter(now + absl::Seconds(2), /*idle=*/true));
  // Its own offers it tells its workers at once.
  EXPECT_TRUE(a_.relay.Enter(now, /*idle=*/true));
  Offer("s1");
  EXPECT_TRUE(a_.relay.Enter(now + absl::Milliseconds(200), /*idle=*/true));
  EXPECT_FALSE(a_.relay.Enter(now + absl::Milliseconds(400), /*idle=*/true));
}

TEST_F(SampleRelayTest, DeletesWhatNobodyWaitsFor) {
  const auto insert = [&](const std::string& server, const std::string& id,
                          const std::string& taken_by) {
    SampleRecord record;
    record.set_server(server);
    record.mutable_order()->set_sample_id(id);
    record.set_taken_by(taken_by);
    ASSERT_OK(store_.Update([&](Transaction& tx) { return InsertRecord(tx, record); }));
  };
  b_.relay.RunOnceForTest();
  insert("gone", "s1", "");
  insert("gone", "s2", "b");
  insert("c", "s3", "b");
  // They are looked through once a minute.
  clock_.Advance(absl::Minutes(1) - absl::Milliseconds(1));
  b_.relay.RunOnceForTest();
  EXPECT_EQ(Records().size(), 3U);
  clock_.Advance(absl::Milliseconds(1));
  b_.relay.RunOnceForTest();
  ASSERT_EQ(Records().size(), 1U);
  EXPECT_EQ(Records()[0].order().sample_id(), "s3");
  // No call lasts so long.
  for (int i = 0; i < 14; ++i) {
    clock_.Advance(absl::Minutes(1));
    b_.relay.RunOnceForTest();
  }
  EXPECT_EQ(Records().size(), 1U);
  clock_.Advance(absl::Minutes(1));
  b_.relay.RunOnceForTest();
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, AServerThatStopsEndsWhatItHasTaken) {
  Offer("s1");
  Take(b_, "w1");
  ASSERT_OK(Return(b_, "w1", "s1", "half"));
  b_.relay.Drain();
  EXPECT_FALSE(b_.relay.MayHaveOffers());
  b_.relay.Stop();
  a_.relay.RunOnceForTest();
  EXPECT_THAT(sink_->pieces, ElementsAre("half"));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "SERVER_STOPPING"));
  EXPECT_THAT(Records(), IsEmpty());
}

TEST_F(SampleRelayTest, AServerThatStopsTakesItsOffersAway) {
  Offer("s1");
  Offer("s2");
  EXPECT_EQ(Take(b_, "w1", 1), std::vector<std::string>{"s1"});
  a_.relay.Stop();
  EXPECT_THAT(*sink_->end, StatusIs(kUnavailable, "SERVER_STOPPING"));
  EXPECT_THAT(Records(), IsEmpty());
  ASSERT_OK(Sign(b_, "w1", "s1"));
  b_.relay.RunOnceForTest();
  EXPECT_THAT(Sign(b_, "w1", "s1"), StatusIs(kCancelled, "SAMPLE_GONE"));
  a_.relay.Stop();
}

TEST_F(SampleRelayTest, AServerThatStopsOffersNothing) {
  Submit("s1");
  store_.FailNextCommitForTest(absl::UnavailableError("no network"));
  Pass(absl::Milliseconds(200));
  Submit("s2");
  a_.relay.Drain();
  Pass(absl::Milliseconds(200));
  EXPECT_THAT(Records(), IsEmpty());
  EXPECT_EQ(a_.broker.Take(clock_.Now(), "w1", 4).size(), 1U);
}

TEST_F(SampleRelayTest, ItsOwnThreadDoesTheWork) {
  a_.relay.Start();
  Submit("s1");
  clock_.Advance(absl::Milliseconds(200));
  while (Records().empty()) a_.relay.Enter(clock_.Now(), /*idle=*/false);
  a_.relay.Stop();
  EXPECT_THAT(Records(), IsEmpty());
}

}  // namespace
}  // namespace ballast::server::testing
