// SPDX-License-Identifier: Apache-2.0
#include "server/testing/job_store_suite.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Row MakeRow(const std::string& scope, const std::string& id, int state, int64_t queue_key) {
  Row row;
  row.scope = scope;
  row.id = id;
  row.state = state;
  row.queue_key = queue_key;
  row.bytes = absl::StrCat("bytes of ", id);
  return row;
}

std::vector<std::string> Ids(const std::vector<Row>& rows) {
  std::vector<std::string> ids;
  for (const Row& row : rows) ids.push_back(absl::StrCat(row.scope, "/", row.id));
  return ids;
}

TEST_P(JobStoreSuite, KeepsRowsOfEveryKindApart) {
  for (const Kind kind : kAllKinds) {
    ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
      Row row = MakeRow("t", "same", 1, 5);
      row.bytes = std::string("with\0zero", 9) + static_cast<char>(kind);
      return tx.Insert(kind, row).status();
    }));
  }
  for (const Kind kind : kAllKinds) {
    ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(const auto row, tx.Get(kind, "t", "same", Hold::kNone));
      EXPECT_TRUE(row.has_value());
      EXPECT_EQ(row->bytes, std::string("with\0zero", 9) + static_cast<char>(kind));
      EXPECT_EQ(row->sequence, 1);
      EXPECT_EQ(row->state, 1);
      EXPECT_EQ(row->queue_key, 5);
      BALLAST_ASSIGN_OR_RETURN(const auto none, tx.Get(kind, "other", "same", Hold::kNone));
      EXPECT_FALSE(none.has_value());
      return absl::OkStatus();
    }));
  }
}

TEST_P(JobStoreSuite, AFailedBodyChangesNothing) {
  const absl::Status failure = absl::AbortedError("on purpose");
  EXPECT_EQ(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("t", "a", 1, 1)));
    EXPECT_OK(tx.AppendEvent("t", "a", {1, "event"}));
    EXPECT_OK(tx.PutRequest("t", "r", {"digest", "a"}));
    EXPECT_OK(tx.AddGarbage("x/y"));
    // Reads see the transaction's own writes.
    EXPECT_TRUE(tx.Get(Kind::kJob, "t", "a", Hold::kNone).value().has_value());
    return failure;
  }),
            failure);
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_FALSE(tx.Get(Kind::kJob, "t", "a", Hold::kNone).value().has_value());
    EXPECT_THAT(tx.ListEvents("t", "a", 0, 10).value(), IsEmpty());
    EXPECT_FALSE(tx.GetRequest("t", "r").value().has_value());
    EXPECT_THAT(tx.ListGarbage("", 10).value(), IsEmpty());
    return absl::OkStatus();
  }));
  // And the next transaction is a fresh one.
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    return tx.Insert(Kind::kJob, MakeRow("t", "a", 1, 1)).status();
  }));
}

TEST_P(JobStoreSuite, RefusesToInsertTwiceAndToReplaceNothing) {
  const auto insert = [&](Transaction& tx) -> absl::Status {
    return tx.Insert(Kind::kVector, MakeRow("", "v", 1, 1)).status();
  };
  ASSERT_OK(store_->Update(insert));
  EXPECT_THAT(store_->Update(insert), StatusIs(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS"));
  EXPECT_THAT(store_->Update([&](Transaction& tx) {
    EXPECT_FALSE(tx.Get(Kind::kVector, "", "none", Hold::kExclusive).value().has_value());
    return tx.Replace(Kind::kVector, MakeRow("", "none", 1, 1));
  }),
              StatusIs(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND"));
}

TEST_P(JobStoreSuite, ReplaceChangesStateAndBytesAndKeepsTheSequence) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("t", "a", 1, 1)));
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("t", "b", 1, 2)));
    Row row = MakeRow("t", "a", 2, 9);
    row.bytes = "new";
    return tx.Replace(Kind::kJob, row);
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    const Row row = tx.Get(Kind::kJob, "t", "a", Hold::kNone).value().value();
    EXPECT_EQ(row.bytes, "new");
    EXPECT_EQ(row.state, 2);
    EXPECT_EQ(row.queue_key, 9);
    EXPECT_EQ(row.sequence, 1);
    EXPECT_THAT(Ids(tx.ListByState(Kind::kJob, 1, {}, 10).value()), ElementsAre("t/b"));
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, ListsAScopeNewestFirstInPages) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    for (int i = 0; i < 5; ++i) {
      EXPECT_OK(tx.Insert(Kind::kDataset, MakeRow("t", absl::StrCat("d", i), 1, 100 - i)));
      EXPECT_OK(tx.Insert(Kind::kDataset, MakeRow("other", absl::StrCat("d", i), 1, i)));
    }
    // A sequence is never given twice, also when its row is gone.
    EXPECT_OK(tx.Delete(Kind::kDataset, "t", "d4"));
    EXPECT_EQ(tx.Insert(Kind::kDataset, MakeRow("t", "d5", 1, 1)).value(), 6);
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    const auto first = tx.ListByScope(Kind::kDataset, "t", 0, 2).value();
    EXPECT_THAT(Ids(first), ElementsAre("t/d5", "t/d3"));
    EXPECT_THAT(Ids(tx.ListByScope(Kind::kDataset, "t", first.back().sequence, 10).value()),
                ElementsAre("t/d2", "t/d1", "t/d0"));
    EXPECT_THAT(tx.ListByScope(Kind::kDataset, "nobody", 0, 10).value(), IsEmpty());
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, ListsAStateInQueueOrderAcrossScopes) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("b", "x", 2, 30)));
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("a", "y", 2, 30)));
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("a", "x", 2, 30)));
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("z", "z", 2, -1)));
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("a", "done", 9, 1)));
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_THAT(Ids(tx.ListByState(Kind::kJob, 2, {}, 10).value()),
                ElementsAre("z/z", "a/x", "a/y", "b/x"));
    EXPECT_THAT(Ids(tx.ListByState(Kind::kJob, 2, {30, "a", "x"}, 1).value()), ElementsAre("a/y"));
    EXPECT_EQ(tx.LastQueueKey(Kind::kJob, 2).value(), 30);
    EXPECT_EQ(tx.LastQueueKey(Kind::kJob, 9).value(), 1);
    EXPECT_EQ(tx.LastQueueKey(Kind::kJob, 3).value(), std::nullopt);
    Row last = MakeRow("a", "", 2, INT64_MAX);
    EXPECT_EQ(tx.CountBefore(Kind::kJob, 2, last).value(), 2);
    EXPECT_EQ(tx.CountBefore(Kind::kJob, 9, last).value(), 1);
    EXPECT_EQ(tx.CountState(Kind::kJob, 2).value(), 4);
    EXPECT_EQ(tx.CountState(Kind::kJob, 3).value(), 0);
    EXPECT_EQ(tx.CountBefore(Kind::kJob, 2, MakeRow("a", "y", 2, 30)).value(), 1);
    EXPECT_EQ(tx.CountBefore(Kind::kJob, 2, MakeRow("b", "x", 2, 30)).value(), 0);
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, CountsRowsOfAScopeInSomeStates) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    int number = 0;
    for (const auto& [scope, state] : std::vector<std::pair<const char*, int>>{
             {"t", 1}, {"t", 1}, {"t", 2}, {"t", 3}, {"t", 4}, {"u", 1}, {"u", 2}}) {
      BALLAST_RETURN_IF_ERROR(
          tx.Insert(Kind::kJob, MakeRow(scope, absl::StrCat("j", ++number), state, 0)).status());
    }
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "t", {1}).value(), 2);
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "t", {1, 2}).value(), 3);
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "t", {4, 2, 3}).value(), 3);
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "t", {4, 5, 3, 2}).value(), 3);
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "t", {5}).value(), 0);
    EXPECT_EQ(tx.CountOfScope(Kind::kJob, "v", {1}).value(), 0);
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, ShiftsTheQueueOfAScope) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    for (const Row& row :
         {MakeRow("t", "a", 1, 10), MakeRow("t", "b", 1, 20), MakeRow("t", "c", 1, 30),
          MakeRow("t", "other-state", 2, 30), MakeRow("u", "other-scope", 1, 30)}) {
      BALLAST_RETURN_IF_ERROR(tx.Insert(Kind::kJob, row).status());
    }
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(tx.Get(Kind::kJob, "t", "c", Hold::kExclusive).status());
    EXPECT_EQ(tx.ShiftQueue(Kind::kJob, "t", 1, 20, 5).value(), 20);
    EXPECT_EQ(tx.Get(Kind::kJob, "t", "c", Hold::kExclusive).value()->queue_key, 35);
    EXPECT_EQ(tx.ShiftQueue(Kind::kJob, "t", 1, 36, 5).value(), std::nullopt);
    EXPECT_EQ(tx.ShiftQueue(Kind::kJob, "t", 1, 26, -1).value(), 35);
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    for (const auto& [scope, id, key] :
         std::vector<std::tuple<const char*, const char*, int>>{{"t", "a", 10},
                                                                {"t", "b", 25},
                                                                {"t", "c", 34},
                                                                {"t", "other-state", 30},
                                                                {"u", "other-scope", 30}}) {
      EXPECT_EQ(tx.Get(Kind::kJob, scope, id, Hold::kNone).value()->queue_key, key) << id;
    }
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, WhatWasPrefetchedIsWhatGetGivesUntilItIsChanged) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(tx.Insert(Kind::kJob, MakeRow("t", "there", 1, 7)).status());
    return tx.Insert(Kind::kDataset, MakeRow("t", "rows", 2, 0)).status();
  }));
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(tx.Prefetch({{Kind::kDataset, "t", "rows", Hold::kShared},
                                         {Kind::kJob, "t", "there", Hold::kExclusive},
                                         {Kind::kJob, "t", "missing", Hold::kNone}}));
    const auto bytes = [&](Kind kind, const char* id, Hold hold) -> std::string {
      const auto row = tx.Get(kind, "t", id, hold).value();
      return row.has_value() ? row->bytes : "none";
    };
    EXPECT_EQ(bytes(Kind::kDataset, "rows", Hold::kShared), "bytes of rows");
    EXPECT_EQ(bytes(Kind::kDataset, "rows", Hold::kExclusive), "bytes of rows");
    EXPECT_EQ(bytes(Kind::kJob, "missing", Hold::kNone), "none");
    EXPECT_EQ(bytes(Kind::kJob, "there", Hold::kExclusive), "bytes of there");
    Row changed = MakeRow("t", "there", 3, 8);
    changed.bytes = "changed";
    BALLAST_RETURN_IF_ERROR(tx.Replace(Kind::kJob, changed));
    EXPECT_EQ(bytes(Kind::kJob, "there", Hold::kNone), "changed");
    BALLAST_RETURN_IF_ERROR(tx.Insert(Kind::kJob, MakeRow("t", "missing", 1, 0)).status());
    EXPECT_EQ(bytes(Kind::kJob, "missing", Hold::kNone), "bytes of missing");
    BALLAST_RETURN_IF_ERROR(tx.Delete(Kind::kJob, "t", "there"));
    EXPECT_EQ(bytes(Kind::kJob, "there", Hold::kNone), "none");
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, UpdatesBesideEachOtherFailAlone) {
  constexpr int kThreads = 8, kUpdates = 12;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kUpdates; ++i) {
        const bool fails = (t + i) % 3 == 0;
        const std::string id = absl::StrCat(fails ? "no-" : "yes-", t, "-", i);
        const absl::Status status = store_->Update([&](Transaction& tx) -> absl::Status {
          BALLAST_RETURN_IF_ERROR(tx.Insert(Kind::kJob, MakeRow("t", id, 1, 0)).status());
          return fails ? absl::CancelledError("planned") : absl::OkStatus();
        });
        EXPECT_EQ(status.code(), fails ? absl::StatusCode::kCancelled : absl::StatusCode::kOk);
        // What is said to be kept is there for whoever looks next.
        EXPECT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
          EXPECT_NE(tx.Get(Kind::kJob, "t", id, Hold::kNone).value().has_value(), fails) << id;
          return absl::OkStatus();
        }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(JobStoreSuite, EventsBelongToAJobAndGoWithIt) {
  EXPECT_THAT(store_->Update([&](Transaction& tx) {
    return tx.AppendEvent("t", "none", {1, "e"});
  }),
              StatusIs(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND"));
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Insert(Kind::kJob, MakeRow("t", "a", 1, 1)));
    for (int64_t i = 1; i <= 4; ++i) EXPECT_OK(tx.AppendEvent("t", "a", {i, absl::StrCat("e", i)}));
    return absl::OkStatus();
  }));
  EXPECT_THAT(store_->Update([&](Transaction& tx) {
    return tx.AppendEvent("t", "a", {4, "again"});
  }),
              StatusIs(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS"));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    const auto events = tx.ListEvents("t", "a", 1, 2).value();
    EXPECT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].sequence, 2);
    EXPECT_EQ(events[1].bytes, "e3");
    return absl::OkStatus();
  }));
  ASSERT_OK(store_->Update([&](Transaction& tx) {
    EXPECT_TRUE(tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value().has_value());
    return tx.Delete(Kind::kJob, "t", "a");
  }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_THAT(tx.ListEvents("t", "a", 0, 10).value(), IsEmpty());
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, RequestsBelongToAScope) {
  ASSERT_OK(store_->Update([&](Transaction& tx) {
    return tx.PutRequest("t", "r", {"d", "name"});
  }));
  EXPECT_THAT(store_->Update([&](Transaction& tx) {
    return tx.PutRequest("t", "r", {"e", "x"});
  }),
              StatusIs(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS"));
  ASSERT_OK(store_->Update([&](Transaction& tx) { return tx.PutRequest("u", "r", {"e", "x"}); }));
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.GetRequest("t", "r").value()->result_name, "name");
    EXPECT_EQ(tx.GetRequest("t", "r").value()->payload_digest, "d");
    EXPECT_FALSE(tx.GetRequest("v", "r").value().has_value());
    return absl::OkStatus();
  }));
}

// "prefix holder", of all.
std::vector<std::string> Garbage(Transaction& tx, std::string_view after = "", int limit = 10) {
  std::vector<std::string> lines;
  const auto rows = tx.ListGarbage(after, limit);
  for (const GarbageRow& row : *rows) {
    lines.push_back(row.blob_prefix + " " + row.holder);
  }
  return lines;
}

TEST_P(JobStoreSuite, GarbageIsASet) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.AddGarbage("b"));
    EXPECT_OK(tx.AddGarbage("a"));
    EXPECT_OK(tx.AddGarbage("b"));
    EXPECT_THAT(Garbage(tx), ElementsAre("a ", "b "));
    EXPECT_THAT(Garbage(tx, "", 1), ElementsAre("a "));
    EXPECT_THAT(Garbage(tx, "a"), ElementsAre("b "));
    EXPECT_OK(tx.RemoveGarbage("a"));
    EXPECT_OK(tx.RemoveGarbage("never there"));
    EXPECT_THAT(Garbage(tx), ElementsAre("b "));
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, GarbageHasAHolder) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_FALSE(tx.GetGarbage("a").value().has_value());
    EXPECT_OK(tx.AddGarbage("a", "one"));
    EXPECT_OK(tx.AddGarbage("a"));
    EXPECT_EQ(tx.GetGarbage("a").value()->holder, "one");
    EXPECT_OK(tx.AddGarbage("a", "two"));
    EXPECT_THAT(Garbage(tx), ElementsAre("a two"));
    EXPECT_EQ(tx.owner(), store_->owner());
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, ReadTransactionsDoNotWrite) {
  EXPECT_THAT(store_->Read([&](Transaction& tx) {
    return tx.Insert(Kind::kJob, MakeRow("t", "a", 1, 1)).status();
  }),
              StatusIs(absl::StatusCode::kInternal, "STORE_READ_ONLY"));
  EXPECT_THAT(store_->Read([&](Transaction& tx) { return tx.AddGarbage("x"); }),
              StatusIs(absl::StatusCode::kInternal, "STORE_READ_ONLY"));
}

TEST_P(JobStoreSuite, ASharedHoldKeepsTheRowUntilTheEnd) {
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    return tx.Insert(Kind::kDataset, MakeRow("t", "d", 1, 1)).status();
  }));
  absl::Notification deleted;
  std::thread deleter;
  ASSERT_OK(store_->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_TRUE(tx.Get(Kind::kDataset, "t", "d", Hold::kShared).value().has_value());
    if (!deleter.joinable()) {
      deleter = std::thread([&] {
        EXPECT_OK(store_->Update([&](Transaction& other) -> absl::Status {
          EXPECT_TRUE(other.Get(Kind::kDataset, "t", "d", Hold::kExclusive).value().has_value());
          return other.Delete(Kind::kDataset, "t", "d");
        }));
        deleted.Notify();
      });
    }
    EXPECT_FALSE(deleted.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
    EXPECT_TRUE(tx.Get(Kind::kDataset, "t", "d", Hold::kNone).value().has_value());
    return absl::OkStatus();
  }));
  deleter.join();
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_FALSE(tx.Get(Kind::kDataset, "t", "d", Hold::kNone).value().has_value());
    return absl::OkStatus();
  }));
}

TEST_P(JobStoreSuite, WhatManyThreadsHoldIsChangedByOneAfterAnother) {
  ASSERT_OK(store_->Update([&](Transaction& tx) {
    Row row = MakeRow("t", "counter", 1, 1);
    row.bytes = "0";
    return tx.Insert(Kind::kJob, row).status();
  }));
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10; ++j) {
        const absl::Status status = store_->Update([&](Transaction& tx) -> absl::Status {
          BALLAST_ASSIGN_OR_RETURN(auto row, tx.Get(Kind::kJob, "t", "counter", Hold::kExclusive));
          row->bytes = std::to_string(std::stoi(row->bytes) + 1);
          return tx.Replace(Kind::kJob, *row);
        });
        if (!status.ok()) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  ASSERT_OK(store_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.Get(Kind::kJob, "t", "counter", Hold::kNone).value()->bytes, "40");
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace ballast::server::testing
