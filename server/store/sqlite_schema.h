// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_SQLITE_SCHEMA_H_
#define BALLAST_SERVER_STORE_SQLITE_SCHEMA_H_

#include "absl/status/status.h"
#include "server/store/sqlite_connection.h"

namespace ballast::server {

// Version that this code writes.
int SchemaVersion();

// Brings a database from any earlier version to SchemaVersion(), each step in a transaction of its
// own. FAILED_PRECONDITION (SCHEMA_TOO_NEW) when a later version of the server has been here: it is
// left alone.
absl::Status MigrateSchema(SqliteConnection& connection);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_SQLITE_SCHEMA_H_
