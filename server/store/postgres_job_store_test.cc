// SPDX-License-Identifier: Apache-2.0
// On a real PostgreSQL server (tests/services/postgres.py), whose connection string is in the file
// BALLAST_POSTGRES_FILE. Each store has a schema of its own.
#include "server/store/postgres_job_store.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/store/postgres_schema.h"
#include "server/testing/dropping_proxy.h"
#include "server/testing/job_store_suite.h"
#include "server/testing/postgres_test_schema.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using testing::DroppingProxy;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::PostgresTestSchema;

// A store with a schema that lives as long.
class StoreInSchema : public JobStore {
 public:
  absl::Status Update(const Body& body) override { return store_->Update(body); }
  absl::Status Read(const Body& body) override { return store_->Read(body); }
  const std::string& owner() const override { return store_->owner(); }

 private:
  PostgresTestSchema schema_;
  std::unique_ptr<PostgresJobStore> store_ = schema_.Open();
};

Row JobRow(const std::string& id) {
  Row row;
  row.scope = "t";
  row.id = id;
  row.bytes = "0";
  return row;
}

absl::Status InsertJob(JobStore& store, const std::string& id) {
  return store.Update([&](Transaction& tx) { return tx.Insert(Kind::kJob, JobRow(id)).status(); });
}

// Bytes of a job, or empty.
std::string BytesOf(JobStore& store, const std::string& id) {
  std::string bytes;
  EXPECT_OK(store.Read([&](Transaction& tx) -> absl::Status {
    bytes.clear();
    const auto row = tx.Get(Kind::kJob, "t", id, Hold::kNone);
    if (row.ok() && row->has_value()) bytes = (*row)->bytes;
    return row.status();
  }));
  return bytes;
}

absl::Status Append(Transaction& tx, const std::string& id, const std::string& what) {
  auto row = tx.Get(Kind::kJob, "t", id, Hold::kExclusive);
  if (!row.ok()) return row.status();
  (*row)->bytes += what;
  return tx.Replace(Kind::kJob, **row);
}

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Postgres, JobStoreSuite,
                         ::testing::Values([] { return std::make_unique<StoreInSchema>(); }));
}  // namespace testing

namespace {

TEST(PostgresJobStoreTest, TwoServersSeeWhatTheOtherKeeps) {
  PostgresTestSchema schema;
  const auto one = schema.Open(), other = schema.Open();
  ASSERT_OK(InsertJob(*one, "a"));
  ASSERT_OK(other->Update([](Transaction& tx) { return Append(tx, "a", "1"); }));
  EXPECT_EQ(BytesOf(*one, "a"), "01");
}

TEST(PostgresJobStoreTest, TransactionsThatBlockEachOtherRunAgain) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(InsertJob(*store, "a"));
  ASSERT_OK(InsertJob(*store, "b"));
  std::atomic<int> runs = 0;
  auto* both_hold = new absl::Barrier(2);
  const auto change = [&](const std::string& first, const std::string& second) {
    bool is_first_run = true;
    EXPECT_OK(store->Update([&](Transaction& tx) -> absl::Status {
      ++runs;
      const absl::Status status = Append(tx, first, "x");
      if (std::exchange(is_first_run, false) && both_hold->Block()) delete both_hold;
      return status.ok() ? Append(tx, second, "y") : status;
    }));
  };
  std::thread thread([&] { change("a", "b"); });
  change("b", "a");
  thread.join();
  EXPECT_GT(runs, 2);
  EXPECT_EQ(BytesOf(*store, "a").size(), 3u);
  EXPECT_EQ(BytesOf(*store, "b").size(), 3u);
}

TEST(PostgresJobStoreTest, ATransactionThatIsCutRunsAgain) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(InsertJob(*store, "a"));
  int runs = 0;
  ASSERT_OK(store->Update([&](Transaction& tx) -> absl::Status {
    const absl::Status status = Append(tx, "a", "1");
    if (++runs == 1) schema.CutConnections();
    return status.ok() ? Append(tx, "a", "2") : status;
  }));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(BytesOf(*store, "a"), "012");
}

TEST(PostgresJobStoreTest, ConnectionsOfBeforeARestartAreNotInTheWay) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(InsertJob(*store, "a"));
  schema.CutConnections();
  EXPECT_EQ(BytesOf(*store, "a"), "0");
  schema.CutConnections();
  ASSERT_OK(store->Update([](Transaction& tx) { return Append(tx, "a", "1"); }));
  EXPECT_EQ(BytesOf(*store, "a"), "01");
}

// Drops the commit of a connection's first transaction, and that of a later one; either body must
// run `runs_each` times.
void ExpectMadeOnce(DroppingProxy::When when, int runs_each) {
  PostgresTestSchema schema;
  DroppingProxy proxy(PostgresTestSchema::ServerSocket());
  ASSERT_OK_AND_ASSIGN(const auto store,
                       PostgresJobStore::Open(schema.ConninfoThrough(proxy.folder()), 2,
                                              Clock::System(), "a-server"));
  int runs = 0;
  proxy.DropNextCommit(when);
  ASSERT_OK(store->Update([&](Transaction& tx) {
    ++runs;
    return tx.Insert(Kind::kJob, JobRow("a")).status();
  }));
  EXPECT_EQ(runs, runs_each);
  EXPECT_FALSE(proxy.waits());
  ASSERT_OK(store->Update([](Transaction& tx) { return Append(tx, "a", "1"); }));
  proxy.DropNextCommit(when);
  ASSERT_OK(store->Update([&](Transaction& tx) {
    ++runs;
    return Append(tx, "a", "2");
  }));
  EXPECT_EQ(runs, 2 * runs_each);
  EXPECT_FALSE(proxy.waits());
  EXPECT_EQ(BytesOf(*store, "a"), "012");
}

TEST(PostgresJobStoreTest, ACommitWhoseAnswerIsLostIsMadeOnce) {
  ExpectMadeOnce(DroppingProxy::When::kAfterCommit, 1);
}

TEST(PostgresJobStoreTest, ACommitThatIsLostIsMadeAgain) {
  ExpectMadeOnce(DroppingProxy::When::kBeforeCommit, 2);
}

TEST(PostgresJobStoreTest, ABodyThatGivesUpLeavesItsConnectionUsable) {
  PostgresTestSchema schema;
  ASSERT_OK_AND_ASSIGN(const auto store,
                       PostgresJobStore::Open(schema.Conninfo(), 1, Clock::System(), "a-server"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(store->Update([](Transaction& tx) -> absl::Status {
      EXPECT_OK(tx.Insert(Kind::kJob, JobRow("a")).status());
      return absl::AbortedError("on purpose");
    }),
                StatusIs(absl::StatusCode::kAborted, ""));
  }
  EXPECT_EQ(BytesOf(*store, "a"), "");
  ASSERT_OK(InsertJob(*store, "a"));
}

TEST(PostgresJobStoreTest, ATransactionWithAFailedStatementIsNotCommitted) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  EXPECT_THAT(store->Update([](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Insert(Kind::kJob, JobRow("a")).status());
    EXPECT_FALSE(tx.Insert(Kind::kJob, JobRow("a")).ok());
    return absl::OkStatus();  // as if nothing had happened
  }),
              StatusIs(absl::StatusCode::kInternal, "STORE_STATEMENT"));
  EXPECT_EQ(BytesOf(*store, "a"), "");
}

TEST(PostgresJobStoreTest, WhatWasPutOffFailsTheTransactionAtItsEnd) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  EXPECT_THAT(store->Update([](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Add(Kind::kJob, JobRow("a")));
    EXPECT_OK(tx.AppendEvent("t", "none", {1, "e"}));
    return absl::OkStatus();
  }),
              StatusIs(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND"));
  EXPECT_EQ(BytesOf(*store, "a"), "");
}

TEST(PostgresJobStoreTest, WhatWasPutOffIsSeenByWhatComesAfter) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(store->Update([](Transaction& tx) -> absl::Status {
    EXPECT_OK(tx.Add(Kind::kJob, JobRow("a")));
    EXPECT_OK(tx.AppendEvent("t", "a", {1, "e"}));
    EXPECT_EQ(tx.ListEvents("t", "a", 0, 10).value().size(), 1u);
    auto row = tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value();
    EXPECT_EQ(row->sequence, 1);
    row->bytes = "other";
    EXPECT_OK(tx.Replace(Kind::kJob, *row));
    EXPECT_EQ(tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value()->bytes, "other");
    EXPECT_EQ(tx.ListByScope(Kind::kJob, "t", 0, 10).value().at(0).bytes, "other");
    EXPECT_OK(tx.Delete(Kind::kJob, "t", "a"));
    EXPECT_FALSE(tx.Get(Kind::kJob, "t", "a", Hold::kNone).value().has_value());
    return tx.Add(Kind::kJob, JobRow("b"));
  }));
  EXPECT_EQ(BytesOf(*store, "a"), "");
  EXPECT_EQ(BytesOf(*store, "b"), "0");
}

TEST(PostgresJobStoreTest, AnUpdateThatWritesNothingLeavesNothingBehind) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(store->Update([](Transaction& tx) -> absl::Status {
    EXPECT_FALSE(tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value().has_value());
    return absl::OkStatus();
  }));
  ASSERT_OK(store->Update([](Transaction&) { return absl::OkStatus(); }));
  ASSERT_OK_AND_ASSIGN(const auto connection, PostgresConnection::Open(schema.Conninfo()));
  EXPECT_EQ(connection->Run("SELECT count(*) FROM commits", {}).value().IntAt(0, 0), 0);
}

TEST(PostgresJobStoreTest, TwinsThatInsertTheSameFindEachOther) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  std::atomic<int> made = 0;
  const auto create = [&] {
    bool mine = false;
    EXPECT_OK(store->Update([&](Transaction& tx) -> absl::Status {
      mine = false;
      const auto earlier = tx.GetRequest("t", "r");
      if (!earlier.ok()) return earlier.status();
      if (earlier->has_value()) return absl::OkStatus();
      mine = true;
      return tx.PutRequest("t", "r", {"d", "name"});
    }));
    if (mine) ++made;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) threads.emplace_back(create);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
}

TEST(PostgresJobStoreTest, RefusesANewerSchemaAndLeavesItAlone) {
  PostgresTestSchema schema;
  ASSERT_OK(InsertJob(*schema.Open(), "a"));
  ASSERT_OK_AND_ASSIGN(const auto connection, PostgresConnection::Open(schema.Conninfo()));
  ASSERT_OK(connection->Execute(
      absl::StrCat("UPDATE schema_version SET version = ", PostgresSchemaVersion() + 1)));
  EXPECT_THAT(PostgresJobStore::Open(schema.Conninfo(), 2, Clock::System(), "a-server"),
              StatusIs(absl::StatusCode::kFailedPrecondition, "SCHEMA_TOO_NEW"));
  ASSERT_OK(connection->Execute(
      absl::StrCat("UPDATE schema_version SET version = ", PostgresSchemaVersion())));
  EXPECT_EQ(BytesOf(*schema.Open(), "a"), "0");
}

TEST(PostgresJobStoreTest, NumbersGoOnAfterThoseOfAnOlderSchema) {
  PostgresTestSchema schema;
  schema.Open();
  ASSERT_OK_AND_ASSIGN(const auto connection, PostgresConnection::Open(schema.Conninfo()));
  // As version 5 left it, for what is checked here.
  ASSERT_OK(
      connection->Execute("DROP SEQUENCE workers_sequence; DROP SEQUENCE servers_sequence;"
                          "DROP SEQUENCE samples_sequence; UPDATE schema_version SET version = 5;"
                          "INSERT INTO workers (scope, id, sequence, state, queue_key, record)"
                          " VALUES ('', 'w', 41, 0, 0, '');"
                          "INSERT INTO sequences (kind, scope, last) VALUES (6, '', 41)"));
  const auto store = schema.Open();
  ASSERT_OK(store->Update([](Transaction& tx) -> absl::Status {
    Row row;
    row.id = "next";
    BALLAST_ASSIGN_OR_RETURN(const int64_t sequence, tx.Insert(Kind::kWorker, row));
    EXPECT_EQ(sequence, 42);
    BALLAST_ASSIGN_OR_RETURN(const int64_t first, tx.Insert(Kind::kServer, row));
    EXPECT_EQ(first, 1);
    return absl::OkStatus();
  }));
}

TEST(PostgresJobStoreTest, ManyServersMayStartAtOnce) {
  PostgresTestSchema schema;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_OK(
          PostgresJobStore::Open(schema.Conninfo(), 1, Clock::System(), absl::StrCat(i)).status());
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_OK(InsertJob(*schema.Open(), "a"));
}

TEST(PostgresJobStoreTest, ARowThatAnotherHoldsIsTakenForNone) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(InsertJob(*store, "a"));
  ASSERT_OK(InsertJob(*store, "b"));
  const auto is_there = [](Transaction& tx, const std::string& id) {
    return tx.Get(Kind::kJob, "t", id, Hold::kExclusiveOrNone).value().has_value();
  };
  ASSERT_OK(store->Update([&](Transaction& tx) -> absl::Status {
    EXPECT_TRUE(tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value().has_value());
    EXPECT_TRUE(is_there(tx, "a"));
    std::thread other([&] {
      EXPECT_OK(store->Update([&](Transaction& claim) -> absl::Status {
        BALLAST_RETURN_IF_ERROR(claim.Prefetch({{Kind::kJob, "t", "a", Hold::kExclusiveOrNone},
                                                {Kind::kJob, "t", "b", Hold::kExclusiveOrNone}}));
        EXPECT_FALSE(is_there(claim, "a"));
        EXPECT_TRUE(is_there(claim, "b"));
        EXPECT_TRUE(claim.Get(Kind::kJob, "t", "a", Hold::kNone).value().has_value());
        return absl::OkStatus();
      }));
    });
    other.join();
    return absl::OkStatus();
  }));
}

TEST(PostgresJobStoreTest, RowsThatAnotherHoldsAreNotShifted) {
  PostgresTestSchema schema;
  const auto store = schema.Open();
  ASSERT_OK(InsertJob(*store, "a"));
  ASSERT_OK(InsertJob(*store, "b"));
  const auto key = [](Transaction& tx, const std::string& id) {
    return tx.Get(Kind::kJob, "t", id, Hold::kNone).value()->queue_key;
  };
  int64_t before = 0;
  int state = 0;
  ASSERT_OK(store->Update([&](Transaction& tx) -> absl::Status {
    const auto a = tx.Get(Kind::kJob, "t", "a", Hold::kExclusive).value();
    before = a->queue_key;
    state = a->state;
    std::thread other([&] {
      EXPECT_OK(store->Update([&](Transaction& create) -> absl::Status {
        EXPECT_EQ(create.ShiftQueue(Kind::kJob, "t", state, before, 7).value(), before);
        return absl::OkStatus();
      }));
    });
    other.join();
    return absl::OkStatus();
  }));
  ASSERT_OK(store->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ(key(tx, "a"), before);
    EXPECT_EQ(key(tx, "b"), before + 7);
    return absl::OkStatus();
  }));
}

TEST(PostgresJobStoreTest, EachServerHasAnIdOfItsOwn) {
  PostgresTestSchema schema;
  const auto one = schema.Open(), other = schema.Open();
  EXPECT_TRUE(one->shared());
  EXPECT_NE(one->owner(), other->owner());
}

TEST(PostgresConnectionTest, OfStatementsInOneRoundTripTheRestIsNotRunAfterAFailure) {
  PostgresTestSchema schema;
  ASSERT_OK_AND_ASSIGN(const auto connection, PostgresConnection::Open(schema.Conninfo()));
  ASSERT_OK(connection->Execute("CREATE TABLE numbers (n bigint)"));
  constexpr char kAdd[] = "INSERT INTO numbers VALUES ($1) RETURNING n";
  constexpr char kDivide[] = "SELECT 1 / $1";
  ASSERT_OK(connection->Execute(PostgresConnection::kBegin));
  ASSERT_OK_AND_ASSIGN(const auto rows, connection->RunAll({{kAdd, {PostgresValue::Int(5)}},
                                                            {kAdd, {PostgresValue::Int(7)}}}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].IntAt(0, 0), 5);
  EXPECT_EQ(rows[1].IntAt(0, 0), 7);
  ASSERT_OK(connection->Commit({}));

  ASSERT_OK(connection->Execute(PostgresConnection::kBegin));
  EXPECT_THAT(connection->RunAll({{kAdd, {PostgresValue::Int(1)}},
                                  {kDivide, {PostgresValue::Int(0)}},
                                  {kAdd, {PostgresValue::Int(2)}}}),
              StatusIs(absl::StatusCode::kInternal, "STORE_STATEMENT"));
  EXPECT_FALSE(connection->idle());
  ASSERT_OK(connection->Execute("ROLLBACK"));
  EXPECT_TRUE(connection->idle());
  ASSERT_OK_AND_ASSIGN(const auto count, connection->Run("SELECT count(*) FROM numbers", {}));
  EXPECT_EQ(count.IntAt(0, 0), 2);
  ASSERT_OK_AND_ASSIGN(const auto none, connection->RunAll({}));
  EXPECT_TRUE(none.empty());
}

TEST(PostgresConnectionTest, WhatCannotBeReadIsNotQuoted) {
  for (const char* conninfo : {"password=my secret dbname=x", "postgresql://u:secret@[::1"}) {
    const absl::Status status = PostgresConnection::CheckConninfo(conninfo);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "CONNINFO_INVALID"));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret")));
  }
  EXPECT_OK(PostgresConnection::CheckConninfo("host=db password='my secret'"));
}

TEST(PostgresJobStoreTest, AServerThatIsNotThereIsUnavailable) {
  const auto store =
      PostgresJobStore::Open("host=/nowhere dbname=x", 1, Clock::System(), "a-server");
  EXPECT_THAT(store, StatusIs(absl::StatusCode::kUnavailable, "STORE_IO"));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("connecting to PostgreSQL"));
}

}  // namespace
}  // namespace ballast::server
