// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite_schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/store/record_statements.h"

namespace ballast::server {
namespace {

// Step i brings version i to i + 1. Never edit one that was released: append another.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE base_models (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE INDEX base_models_by_state ON base_models (state, queue_key, scope, id);
CREATE TABLE datasets (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE INDEX datasets_by_state ON datasets (state, queue_key, scope, id);
CREATE TABLE jobs (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE INDEX jobs_by_state ON jobs (state, queue_key, scope, id);
CREATE TABLE vectors (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE INDEX vectors_by_state ON vectors (state, queue_key, scope, id);
CREATE TABLE sequences (
  kind INTEGER NOT NULL, scope TEXT NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (kind, scope)) WITHOUT ROWID;
CREATE TABLE job_events (
  scope TEXT NOT NULL, job TEXT NOT NULL, sequence INTEGER NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (scope, job, sequence),
  FOREIGN KEY (scope, job) REFERENCES jobs (scope, id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE requests (
  scope TEXT NOT NULL, request_id TEXT NOT NULL, payload_digest TEXT NOT NULL,
  result_name TEXT NOT NULL,
  PRIMARY KEY (scope, request_id)) WITHOUT ROWID;
CREATE TABLE garbage (blob_prefix TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
)sql",
    R"sql(
CREATE TABLE tenants (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE INDEX tenants_by_state ON tenants (state, queue_key, scope, id);
)sql",
    R"sql(
CREATE INDEX jobs_of_a_tenant ON jobs (scope, state, queue_key, id);
CREATE TABLE usage (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
)sql",
    R"sql(
CREATE TABLE workers (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE TABLE servers (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
CREATE TABLE samples (
  scope TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, state INTEGER NOT NULL,
  queue_key INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (scope, id), UNIQUE (scope, sequence));
ALTER TABLE garbage ADD COLUMN holder TEXT NOT NULL DEFAULT '';
)sql",
    // Nothing to change: servers of before know neither jobs that are SCREENING nor places that
    // were shifted, and must not start.
    "",
};

}  // namespace

int SchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

absl::Status MigrateSchema(SqliteConnection& connection) {
  BALLAST_RETURN_IF_ERROR(
      connection.Execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)"));
  BALLAST_ASSIGN_OR_RETURN(
      SqliteStatement* const read,
      connection.Prepare("SELECT coalesce(max(version), 0) FROM schema_version"));
  BALLAST_RETURN_IF_ERROR(read->Step().status());
  int version = static_cast<int>(read->IntAt(0));
  read->Reset();
  BALLAST_RETURN_IF_ERROR(CheckSchemaVersion(version, SchemaVersion()));
  for (; version < SchemaVersion(); ++version) {
    const absl::Status status = connection.Execute(
        absl::StrCat("BEGIN IMMEDIATE;", kMigrations[version], "DELETE FROM schema_version;",
                     "INSERT INTO schema_version VALUES (", version + 1, "); COMMIT;"));
    if (!status.ok()) {
      connection.Execute("ROLLBACK").IgnoreError();
      return Annotate(status, absl::StrCat("bringing the database to version ", version + 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace ballast::server
