// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_job_store.h"

#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/postgres_schema.h"
#include "server/store/postgres_transaction.h"

namespace ballast::server {
namespace {

// A transaction is run at most so often, with pauses that grow from the first on.
constexpr int kRuns = 5;
constexpr absl::Duration kFirstPause = absl::Milliseconds(5);
// How long a transaction that was cut off at its commit is looked for: until PostgreSQL must have
// ended it (idle_in_transaction_session_timeout). And how often.
constexpr absl::Duration kLongestSearch = absl::Seconds(20);
constexpr absl::Duration kSearchPause = absl::Milliseconds(200);

// What a transaction leaves to be found by, should its commit be lost.
constexpr char kStampCommit[] = "INSERT INTO commits (connection, serial) VALUES ($1, $2)";
// Those of a connection that nobody can ask for any more; and how often.
constexpr char kForgetOwn[] = "DELETE FROM commits WHERE connection = $1 AND serial < $2";
constexpr int64_t kForgetEvery = 1000;
constexpr char kBegin[] = "BEGIN", kRollback[] = "ROLLBACK";
// Of connections that are closed for sure.
constexpr char kForgetOld[] = "DELETE FROM commits WHERE begun < now() - interval '7 days'";
// Waits for a transaction that writes the same row, and writes it where that one has not. Rolled
// back, so that it can be asked again.
constexpr char kTakeSerial[] =
    "INSERT INTO commits (connection, serial) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    " RETURNING serial";

// Runs `attempt` until it does not ask for another run.
template <typename Attempt>
absl::Status Persist(Attempt attempt) {
  absl::BitGen random;
  absl::Duration pause = kFirstPause;
  for (int run = 1;; ++run) {
    bool again = false;
    absl::Status status = attempt(again);
    if (!again || run == kRuns) return status;
    // Two that stopped each other must not meet again.
    absl::SleepFor(pause * absl::Uniform(random, 0.5, 1.5));
    pause *= 3;
  }
}

// Whether what has failed on `connection`, in a transaction that was not committed, may work when
// it is done again.
bool MayWork(const PostgresConnection& connection) {
  const std::string& state = connection.sqlstate();
  // Serialisation and deadlocks; a unique key that another transaction has just taken, which the
  // next run will find. 57P..: the server goes down, or ends the session.
  return !connection.alive() || state.substr(0, 2) == "40" || state == "23505" ||
         state.substr(0, 3) == "57P";
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresJobStore>> PostgresJobStore::Open(
    const std::string& conninfo, int connections, Clock& clock, const std::string& owner) {
  BALLAST_ASSIGN_OR_RETURN(const auto connection, PostgresConnection::Open(conninfo));
  BALLAST_RETURN_IF_ERROR(MigratePostgresSchema(*connection));
  BALLAST_RETURN_IF_ERROR(connection->Execute(kForgetOld));
  return std::unique_ptr<PostgresJobStore>(
      new PostgresJobStore(conninfo, connections, clock, owner));
}

absl::Status PostgresJobStore::Update(const Body& body) {
  return Persist([&](bool& again) { return TryUpdate(body, again); });
}

absl::Status PostgresJobStore::TryUpdate(const Body& body, bool& again) {
  Stamp stamp;
  absl::Status lost;
  {
    BALLAST_ASSIGN_OR_RETURN(const PostgresPool::Lease connection, pool_.Take());
    stamp = {connection->id(), connection->NextSerial()};
    PostgresTransaction transaction(
        *connection, owner_,
        {kStampCommit, {PostgresValue::Text(stamp.connection), PostgresValue::Int(stamp.serial)}});
    absl::Status status = body(transaction);
    if (status.ok()) {
      status = transaction.Commit();
      if (status.ok()) {
        if (stamp.serial % kForgetEvery == 0) ForgetOwn(*connection, stamp);
        return status;
      }
      if (ErrorReason(status) == "COMMIT_UNKNOWN") lost = status;
    }
    if (lost.ok()) {
      again = MayWork(*connection);
      if (connection->alive() && !connection->idle()) connection->Execute("ROLLBACK").IgnoreError();
      return status;
    }
  }
  BALLAST_ASSIGN_OR_RETURN(const bool committed, WasCommitted(stamp, lost));
  if (committed) return absl::OkStatus();
  again = true;
  return MakeError(absl::StatusCode::kUnavailable, "STORE_IO",
                   "the connection to PostgreSQL was lost, and nothing was changed; try again");
}

void PostgresJobStore::ForgetOwn(PostgresConnection& connection, const Stamp& stamp) {
  connection
      .Run(kForgetOwn, {PostgresValue::Text(stamp.connection), PostgresValue::Int(stamp.serial)})
      .status()
      .IgnoreError();
}

absl::StatusOr<bool> PostgresJobStore::WasCommitted(const Stamp& stamp, const absl::Status& lost) {
  const absl::Time deadline = clock_.Now() + kLongestSearch;
  for (bool first = true; first || clock_.Now() < deadline; first = false) {
    if (!first) absl::SleepFor(kSearchPause);
    const auto connection = pool_.Take();
    if (!connection.ok()) continue;  // it may be starting again
    const std::vector<PostgresValue> key = {PostgresValue::Text(stamp.connection),
                                            PostgresValue::Int(stamp.serial)};
    const auto taken = (*connection)->RunAll({{kBegin, {}}, {kTakeSerial, key}, {kRollback, {}}});
    if (taken.ok()) return (*taken)[1].count() == 0;
  }
  return lost;
}

absl::Status PostgresJobStore::Read(const Body& body) {
  return Persist([&](bool& again) { return TryRead(body, again); });
}

absl::Status PostgresJobStore::TryRead(const Body& body, bool& again) {
  BALLAST_ASSIGN_OR_RETURN(const PostgresPool::Lease connection, pool_.Take());
  PostgresTransaction transaction(*connection, owner_);
  const absl::Status status = body(transaction);
  // A connection of before PostgreSQL's restart: the body has seen nothing yet.
  again = !status.ok() && !transaction.has_begun() && MayWork(*connection);
  if (connection->alive() && !connection->idle()) connection->Execute("ROLLBACK").IgnoreError();
  return status;
}

}  // namespace ballast::server
