// SPDX-License-Identifier: Apache-2.0
// What both databases are asked about a table of records: SQL that they read alike, with $1, $2,
// ... for values.
#ifndef BALLAST_SERVER_STORE_RECORD_STATEMENTS_H_
#define BALLAST_SERVER_STORE_RECORD_STATEMENTS_H_

#include "absl/status/status.h"
#include "server/core/job_store.h"

namespace ballast::server {

// The statements of one table. Parameters stand in the order of their numbers, since SQLite counts
// them as they come. They are written out by the preprocessor: table names cannot be parameters,
// and connections keep prepared statements by the address of their text.
struct RecordStatements {
  const char* get;
  const char* get_shared;       // PostgreSQL only
  const char* get_exclusive;    // PostgreSQL only
  const char* get_unless_held;  // PostgreSQL only: Hold::kExclusiveOrNone
  const char* insert;           // SQLite only
  const char* insert_next;      // PostgreSQL only: with the next sequence
  const char* replace;
  const char* erase;
  const char* list_by_scope;
  const char* list_by_state;
  const char* count_before;
  const char* count_of_scope;
  const char* count_state;
  const char* last_queue_key;
  const char* first_to_shift;  // SQLite only
  const char* shift_queue;     // SQLite only
  const char* shift_unheld;    // PostgreSQL only: both in one
};

const RecordStatements& StatementsFor(Kind kind);

// FAILED_PRECONDITION (SCHEMA_TOO_NEW) for a database of a later version than this server knows.
absl::Status CheckSchemaVersion(int version, int known);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_RECORD_STATEMENTS_H_
