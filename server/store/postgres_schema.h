// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_SCHEMA_H_
#define BALLAST_SERVER_STORE_POSTGRES_SCHEMA_H_

#include "absl/status/status.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// Version that this code writes.
int PostgresSchemaVersion();

// Brings the tables in the connection's search path from any earlier version, or none, to
// PostgresSchemaVersion(), each step in a transaction of its own; servers that start together wait
// for each other. FAILED_PRECONDITION (SCHEMA_TOO_NEW) when a later version of the server has been
// here: it is left alone. The connection is then without time limits: close it.
absl::Status MigratePostgresSchema(PostgresConnection& connection);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_SCHEMA_H_
