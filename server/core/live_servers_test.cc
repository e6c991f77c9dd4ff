// SPDX-License-Identifier: Apache-2.0
#include "server/core/live_servers.h"

#include <string>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/blob_hold.h"
#include "server/core/records.h"
#include "server/testing/fake_job_store.h"

namespace ballast::server::testing {
namespace {

using ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// The servers "a" and "b" on one store.
class LiveServersTest : public ::testing::Test {
 protected:
  LiveServersTest() { store_.ShareForTest(); }

  absl::Status EnterAs(const std::string& server, LiveServers& servers) {
    store_.BeServerForTest(server);
    return servers.Enter(now_);
  }

  std::vector<std::string> Known() {
    std::vector<std::string> ids;
    EXPECT_OK(store_.Read([&](Transaction& tx) {
      return ForEachInState<ServerRecord>(tx, 0,
                                          [&](const ServerRecord& record) -> absl::StatusOr<bool> {
                                            ids.push_back(record.id());
                                            return true;
                                          });
    }));
    return ids;
  }

  absl::Status UpdateAs(const std::string& server, const JobStore::Body& body) {
    store_.BeServerForTest(server);
    return store_.Update(body);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  FakeJobStore store_;
  LiveServers a_{store_, "s3://bucket", "1"}, b_{store_, "s3://bucket", "1"};
};

TEST_F(LiveServersTest, WhoGivesSignsIsNotGone) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK(EnterAs("a", a_));
    ASSERT_OK(EnterAs("b", b_));
    now_ += LiveServers::kBetweenSigns;
  }
  EXPECT_THAT(Known(), UnorderedElementsAre("a", "b"));
}

TEST_F(LiveServersTest, WhoIsSilentIsGoneByTheClockOfTheOther) {
  ASSERT_OK(EnterAs("b", b_));
  const absl::Time begin = now_;
  ASSERT_OK(EnterAs("a", a_));
  while (now_ - begin < LiveServers::kPatience - absl::Seconds(1)) {
    now_ += absl::Seconds(1);
    ASSERT_OK(EnterAs("a", a_));
    EXPECT_THAT(Known(), UnorderedElementsAre("a", "b"));
  }
  now_ += absl::Seconds(6);
  ASSERT_OK(EnterAs("a", a_));
  EXPECT_THAT(Known(), ElementsAre("a"));
  // It was only stopped for a while: it is there again.
  ASSERT_OK(EnterAs("b", b_));
  EXPECT_THAT(Known(), UnorderedElementsAre("a", "b"));
}

TEST_F(LiveServersTest, NobodyIsGoneBecauseTheStoreWasAway) {
  ASSERT_OK(EnterAs("b", b_));
  ASSERT_OK(EnterAs("a", a_));
  now_ += absl::Minutes(5);
  ASSERT_OK(EnterAs("a", a_));
  EXPECT_THAT(Known(), UnorderedElementsAre("a", "b"));
}

TEST_F(LiveServersTest, WhoLeavesIsGoneAtOnce) {
  ASSERT_OK(EnterAs("a", a_));
  ASSERT_OK(EnterAs("b", b_));
  store_.BeServerForTest("b");
  ASSERT_OK(b_.Leave());
  EXPECT_THAT(Known(), ElementsAre("a"));
}

TEST_F(LiveServersTest, AllKeepTheirBlobsInOnePlace) {
  store_.BeServerForTest("a");
  ASSERT_OK(a_.Join(now_));
  LiveServers other(store_, "a folder of its own", "1");
  store_.BeServerForTest("c");
  EXPECT_THAT(other.Join(now_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "BLOB_STORE_DIFFERS"));
  EXPECT_THAT(Known(), ElementsAre("a"));
  store_.BeServerForTest("b");
  EXPECT_OK(b_.Join(now_));
}

TEST_F(LiveServersTest, AServerThatIsStartedAgainIsAnotherOwnerWithTheSameId) {
  LiveServers first(store_, "s3://bucket", "1"), second(store_, "s3://bucket", "1");
  store_.BeServerForTest("c/1");
  ASSERT_OK(first.Join(now_));
  const auto is_elsewhere = [&](const std::string& owner) {
    bool elsewhere = false;
    EXPECT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(elsewhere, IsAtAnotherServer(tx, owner));
      return absl::OkStatus();
    }));
    return elsewhere;
  };
  store_.BeServerForTest("a");
  EXPECT_TRUE(is_elsewhere("c/1"));
  store_.BeServerForTest("c/2");
  ASSERT_OK(second.Join(now_));
  EXPECT_FALSE(is_elsewhere("c/1"));
  store_.BeServerForTest("a");
  EXPECT_FALSE(is_elsewhere("c/1"));
  EXPECT_TRUE(is_elsewhere("c/2"));
  EXPECT_THAT(Known(), ElementsAre("c"));
  // It was no restart but a copy: the first one has to go, and takes nothing of the other's along.
  store_.BeServerForTest("c/1");
  now_ += LiveServers::kBetweenSigns;
  EXPECT_THAT(first.Enter(now_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "SERVER_ID_TAKEN"));
  ASSERT_OK(first.Leave());
  store_.BeServerForTest("a");
  EXPECT_TRUE(is_elsewhere("c/2"));
}

TEST_F(LiveServersTest, ADeadServerWithOtherBlobsIsInTheWayForAWhileOnly) {
  LiveServers dead(store_, "a folder of its own", "1");
  store_.BeServerForTest("dead");
  ASSERT_OK(dead.Join(now_));
  store_.BeServerForTest("a");
  const absl::Time begin = now_;
  while (!a_.Join(now_).ok() && now_ - begin < absl::Minutes(2)) {
    EXPECT_THAT(Known(), ElementsAre("dead"));
    now_ += absl::Seconds(1);
  }
  EXPECT_EQ(now_ - begin, LiveServers::kPatience);
  EXPECT_THAT(Known(), ElementsAre("a"));
}

TEST_F(LiveServersTest, WhoHasNotSignedForLongIsNotSure) {
  ASSERT_OK(EnterAs("a", a_));
  EXPECT_TRUE(a_.IsSure(now_ + absl::Seconds(10)));
  EXPECT_FALSE(a_.IsSure(now_ + absl::Seconds(20)));
}

TEST_F(LiveServersTest, AServerThatIsAloneWritesNothing) {
  FakeJobStore own;
  LiveServers servers(own, "a folder", "1");
  ASSERT_OK(servers.Join(now_));
  ASSERT_OK(servers.Enter(now_));
  ASSERT_OK(own.Read([&](Transaction& tx) -> absl::Status {
    EXPECT_THAT(tx.ListByState(Kind::kServer, 0, {}, 10).value(), IsEmpty());
    return absl::OkStatus();
  }));
}

TEST_F(LiveServersTest, BlobsAreHeldUntilTheirServerIsGone) {
  ASSERT_OK(EnterAs("a", a_));
  ASSERT_OK(EnterAs("b", b_));
  const auto hold = [](Transaction& tx) { return HoldBlobs(tx, "p"); };
  const auto name = [](Transaction& tx) { return NameBlobs(tx, "p"); };
  ASSERT_OK(UpdateAs("a", hold));
  ASSERT_OK(UpdateAs("a", hold));
  EXPECT_THAT(UpdateAs("b", hold), StatusIs(absl::StatusCode::kAborted, "BLOBS_IN_USE"));
  store_.BeServerForTest("a");
  ASSERT_OK(a_.Leave());
  ASSERT_OK(UpdateAs("b", hold));
  // What "a" has written meanwhile may be deleted.
  EXPECT_THAT(UpdateAs("a", name), StatusIs(absl::StatusCode::kAborted, "BLOBS_LOST"));
  ASSERT_OK(UpdateAs("b", name));
  EXPECT_THAT(UpdateAs("b", name), StatusIs(absl::StatusCode::kAborted, "BLOBS_LOST"));
}

}  // namespace
}  // namespace ballast::server::testing
