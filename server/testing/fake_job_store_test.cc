// SPDX-License-Identifier: Apache-2.0
#include "server/testing/fake_job_store.h"

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/job_store_suite.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;

INSTANTIATE_TEST_SUITE_P(Fake, JobStoreSuite,
                         ::testing::Values([] { return std::make_unique<FakeJobStore>(); }));

Row JobRow() {
  Row row;
  row.scope = "t";
  row.id = "a";
  return row;
}

TEST(FakeJobStoreTest, RunsBodiesTwiceAndKeepsTheLastRun) {
  FakeJobStore store;
  int runs = 0;
  ASSERT_OK(store.Update([&](Transaction& tx) -> absl::Status {
    Row row = JobRow();
    row.state = ++runs;
    return tx.Insert(Kind::kJob, row).status();
  }));
  EXPECT_EQ(runs, 2);
  ASSERT_OK(store.Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.Get(Kind::kJob, "t", "a", Hold::kNone).value()->state, 2);
    return absl::OkStatus();
  }));
}

TEST(FakeJobStoreTest, OnlyRowsThatAreHeldExclusivelyAreChanged) {
  FakeJobStore store;
  ASSERT_OK(store.Update([](Transaction& tx) { return tx.Insert(Kind::kJob, JobRow()).status(); }));
  for (const Hold hold : {Hold::kNone, Hold::kShared}) {
    EXPECT_THAT(store.Update([&](Transaction& tx) {
      EXPECT_OK(tx.Get(Kind::kJob, "t", "a", hold).status());
      return tx.Replace(Kind::kJob, JobRow());
    }),
                StatusIs(absl::StatusCode::kInternal, "ROW_NOT_HELD"));
  }
  EXPECT_THAT(store.Update([](Transaction& tx) { return tx.Delete(Kind::kJob, "t", "a"); }),
              StatusIs(absl::StatusCode::kInternal, "ROW_NOT_HELD"));
  EXPECT_OK(store.Update([](Transaction& tx) {
    EXPECT_OK(tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).status());
    return tx.Delete(Kind::kJob, "t", "a");
  }));
}

TEST(FakeJobStoreTest, AViewIsAnotherServersOfTheSameRecords) {
  FakeJobStore store;
  store.ShareForTest();
  const auto view = store.ViewAsServerForTest("b");
  EXPECT_TRUE(view->shared());
  EXPECT_EQ(view->owner(), "b");
  EXPECT_NE(store.owner(), "b");
  ASSERT_OK(view->Update([](Transaction& tx) {
    EXPECT_EQ(tx.owner(), "b");
    return tx.Insert(Kind::kJob, JobRow()).status();
  }));
  ASSERT_OK(store.Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.owner(), store.owner());
    EXPECT_TRUE(tx.Get(Kind::kJob, "t", "a", Hold::kNone).value().has_value());
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace ballast::server::testing
