// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/record_statements.h"

namespace ballast::server {
namespace {

// A table of records, as in sqlite_schema.cc. Text is compared by its bytes, whatever the
// database's locale says, so that both stores list in one order. Rows are changed often and in
// place, so pages keep room for their next versions.
#define BALLAST_RECORDS(table)                                                   \
  "CREATE TABLE " table                                                          \
  " (scope text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL,"         \
  " sequence bigint NOT NULL, state bigint NOT NULL, queue_key bigint NOT NULL," \
  " record bytea NOT NULL, PRIMARY KEY (scope, id), UNIQUE (scope, sequence))"   \
  " WITH (fillfactor = 80);"                                                     \
  "CREATE INDEX " table "_by_state ON " table " (state, queue_key, scope, id);"

#define BALLAST_SEQUENCE(table)                                                            \
  "CREATE SEQUENCE " table                                                                 \
  "_sequence;"                                                                             \
  "SELECT setval('" table "_sequence', (SELECT coalesce(max(sequence), 0) + 1 FROM " table \
  "), false);"

// Step i brings version i to i + 1. Never edit one that was released: append another.
constexpr const char* kMigrations[] = {
    BALLAST_RECORDS("base_models") BALLAST_RECORDS("datasets") BALLAST_RECORDS("jobs")
        BALLAST_RECORDS("vectors") BALLAST_RECORDS("tenants")
            R"sql(
CREATE TABLE sequences (
  kind bigint NOT NULL, scope text COLLATE "C" NOT NULL, last bigint NOT NULL,
  PRIMARY KEY (kind, scope));
CREATE TABLE job_events (
  scope text COLLATE "C" NOT NULL, job text COLLATE "C" NOT NULL, sequence bigint NOT NULL,
  event bytea NOT NULL,
  PRIMARY KEY (scope, job, sequence),
  FOREIGN KEY (scope, job) REFERENCES jobs (scope, id) ON DELETE CASCADE);
CREATE TABLE requests (
  scope text COLLATE "C" NOT NULL, request_id text COLLATE "C" NOT NULL,
  payload_digest text NOT NULL, result_name text NOT NULL,
  PRIMARY KEY (scope, request_id));
CREATE TABLE garbage (blob_prefix text COLLATE "C" PRIMARY KEY);
CREATE TABLE commits (
  connection text PRIMARY KEY, serial bigint NOT NULL, begun timestamptz NOT NULL DEFAULT now())
  WITH (fillfactor = 20);
)sql",
    "CREATE INDEX jobs_of_a_tenant ON jobs (scope, state, queue_key, id);" BALLAST_RECORDS("usage"),
    // A row for each commit: versions of one that is changed by all would pile up where PostgreSQL
    // cannot clean up, and each would be read again.
    R"sql(
ALTER TABLE commits DROP CONSTRAINT commits_pkey;
ALTER TABLE commits ADD PRIMARY KEY (connection, serial);
ALTER TABLE commits RESET (fillfactor);
)sql",
    // Several servers. Prompts and replies in `samples` are for as long as a call lasts: they are
    // in no write-ahead log, and so in no backup.
    BALLAST_RECORDS("workers") BALLAST_RECORDS("servers") BALLAST_RECORDS("samples")
        R"sql(
ALTER TABLE samples SET UNLOGGED;
ALTER TABLE garbage ADD COLUMN holder text COLLATE "C" NOT NULL DEFAULT '';
DROP TABLE IF EXISTS server_generation;
)sql",
    // Nothing to change: servers of before know neither jobs that are SCREENING nor places that
    // were shifted, and must not start.
    "",
    // Numbers that all servers draw (record_statements.cc).
    BALLAST_SEQUENCE("workers") BALLAST_SEQUENCE("servers")
        BALLAST_SEQUENCE("samples") "DELETE FROM sequences WHERE kind IN (6, 7, 8);",
};
#undef BALLAST_SEQUENCE
#undef BALLAST_RECORDS

// One for each schema: two keys of 32 bits, the first any number, the same in all versions.
constexpr char kLock[] = "SELECT pg_advisory_lock(716192601, hashtext(current_schema()))";
// Of the version from which on several servers may share a schema; one of before has it to itself,
// by a lock of its session.
constexpr int kFirstShared = 4;
constexpr char kTryLockOfOldServers[] =
    "SELECT pg_try_advisory_lock(716192602, hashtext(current_schema()))::int::bigint";
constexpr char kUnlock[] = "SELECT pg_advisory_unlock(716192601, hashtext(current_schema()))";

absl::Status MigrateLocked(PostgresConnection& connection) {
  BALLAST_RETURN_IF_ERROR(
      connection.Execute("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)"));
  BALLAST_ASSIGN_OR_RETURN(
      const PostgresRows rows,
      connection.Run("SELECT coalesce(max(version), 0) FROM schema_version", {}));
  int version = static_cast<int>(rows.IntAt(0, 0));
  BALLAST_RETURN_IF_ERROR(CheckSchemaVersion(version, PostgresSchemaVersion()));
  if (version > 0 && version < kFirstShared) {
    BALLAST_ASSIGN_OR_RETURN(const PostgresRows alone, connection.Run(kTryLockOfOldServers, {}));
    if (alone.IntAt(0, 0) == 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
                       "an older ballast-server uses this PostgreSQL database; stop it first");
    }
  }
  for (; version < PostgresSchemaVersion(); ++version) {
    const absl::Status status = connection.Execute(
        absl::StrCat("BEGIN;", kMigrations[version], "DELETE FROM schema_version;",
                     "INSERT INTO schema_version VALUES (", version + 1, "); COMMIT;"));
    if (!status.ok()) {
      connection.Execute("ROLLBACK").IgnoreError();
      return Annotate(status, absl::StrCat("bringing the database to version ", version + 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

int PostgresSchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

absl::Status MigratePostgresSchema(PostgresConnection& connection) {
  // Others may take long, and so may a step.
  BALLAST_RETURN_IF_ERROR(connection.Execute("SET statement_timeout = 0; SET lock_timeout = 0"));
  BALLAST_RETURN_IF_ERROR(connection.Execute(kLock));
  const absl::Status status = MigrateLocked(connection);
  // Where the connection was lost, the lock is gone with it.
  connection.Execute(kUnlock).IgnoreError();
  return status;
}

}  // namespace ballast::server
