// SPDX-License-Identifier: Apache-2.0
#include "server/api/held_calls.h"

#include <memory>
#include <string>

#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/core_fixture.h"
#include "server/testing/sample_relay_fixture.h"

namespace ballast::server::testing {
namespace {

using worker::v1::SampleOrder;

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

}  // namespace
}  // namespace ballast::server::testing
