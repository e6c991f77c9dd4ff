// SPDX-License-Identifier: Apache-2.0
#include "server/store/record_statements.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::server {
namespace {

#define BALLAST_COLUMNS "scope, id, sequence, state, queue_key, record"
#define BALLAST_GET(table) "SELECT " BALLAST_COLUMNS " FROM " table " WHERE scope = $1 AND id = $2"
// `next`: SQL of the next sequence, as `last` of the table `next`.
#define BALLAST_STATEMENTS(table, next)                                                        \
  {                                                                                            \
    BALLAST_GET(table), BALLAST_GET(table) " FOR SHARE", BALLAST_GET(table) " FOR UPDATE",     \
        BALLAST_GET(table) " FOR UPDATE SKIP LOCKED",                                          \
        "INSERT INTO " table " (" BALLAST_COLUMNS ") VALUES ($1, $2, $3, $4, $5, $6)",         \
        "WITH next AS (" next ") INSERT INTO " table " (" BALLAST_COLUMNS                      \
        ") SELECT $1, $2, last, $3, $4, $5"                                                    \
        " FROM next RETURNING sequence",                                                       \
        "UPDATE " table                                                                        \
        " SET state = $1, queue_key = $2, record = $3 WHERE scope = $4 AND id = $5"            \
        " RETURNING sequence",                                                                 \
        "DELETE FROM " table " WHERE scope = $1 AND id = $2",                                  \
        "SELECT " BALLAST_COLUMNS " FROM " table                                               \
        " WHERE scope = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3",                 \
        "SELECT " BALLAST_COLUMNS " FROM " table                                               \
        " WHERE state = $1 AND (queue_key, scope, id) > ($2, $3, $4)"                          \
        " ORDER BY queue_key, scope, id LIMIT $5",                                             \
        "SELECT count(*) FROM " table                                                          \
        " WHERE scope = $1 AND state = $2 AND (queue_key, id) < ($3, $4)",                     \
        "SELECT count(*) FROM " table " WHERE scope = $1 AND state IN ($2, $3, $4, $5)",       \
        "SELECT count(*) FROM " table " WHERE state = $1",                                     \
        "SELECT queue_key FROM " table " WHERE state = $1 ORDER BY queue_key DESC LIMIT 1",    \
        "SELECT queue_key FROM " table                                                         \
        " WHERE scope = $1 AND state = $2 AND queue_key >= $3 ORDER BY queue_key LIMIT 1",     \
        "UPDATE " table                                                                        \
        " SET queue_key = queue_key + $1 WHERE scope = $2 AND state = $3 AND queue_key >= $4", \
        "WITH unheld AS (SELECT id, queue_key FROM " table                                     \
        " WHERE scope = $1 AND state = $2 AND queue_key >= $3 FOR UPDATE SKIP LOCKED),"        \
        " shifted AS (UPDATE " table                                                           \
        " AS t SET queue_key = t.queue_key + $4 FROM unheld"                                   \
        " WHERE t.scope = $1 AND t.id = unheld.id)"                                            \
        " SELECT min(queue_key) FROM unheld HAVING count(*) > 0"                               \
  }

// A row of `sequences` for each scope: a number of all tenants would tell each, in page tokens,
// what the others do.
#define BALLAST_OF_SCOPE(kind)                                   \
  "INSERT INTO sequences AS s (kind, scope, last) VALUES (" kind \
  ", $1, 1)"                                                     \
  " ON CONFLICT (kind, scope) DO UPDATE SET last = s.last + 1 RETURNING last"
// A sequence of PostgreSQL, for what comes often and belongs to the service: all would change one
// row of `sequences`, in turn, and its versions would pile up where others keep them from being
// cleaned away.
#define BALLAST_OF_SERVICE(sequence) "SELECT nextval('" sequence "') AS last"

constexpr RecordStatements kStatements[] = {
    BALLAST_STATEMENTS("base_models", BALLAST_OF_SCOPE("0")),
    BALLAST_STATEMENTS("datasets", BALLAST_OF_SCOPE("1")),
    BALLAST_STATEMENTS("jobs", BALLAST_OF_SCOPE("2")),
    BALLAST_STATEMENTS("vectors", BALLAST_OF_SCOPE("3")),
    BALLAST_STATEMENTS("tenants", BALLAST_OF_SCOPE("4")),
    BALLAST_STATEMENTS("usage", BALLAST_OF_SCOPE("5")),
    BALLAST_STATEMENTS("workers", BALLAST_OF_SERVICE("workers_sequence")),
    BALLAST_STATEMENTS("servers", BALLAST_OF_SERVICE("servers_sequence")),
    BALLAST_STATEMENTS("samples", BALLAST_OF_SERVICE("samples_sequence")),
};
static_assert(static_cast<int>(Kind::kUsage) == 5);

#undef BALLAST_OF_SERVICE
#undef BALLAST_OF_SCOPE

#undef BALLAST_STATEMENTS
#undef BALLAST_GET
#undef BALLAST_COLUMNS

}  // namespace

const RecordStatements& StatementsFor(Kind kind) { return kStatements[static_cast<int>(kind)]; }

absl::Status CheckSchemaVersion(int version, int known) {
  if (version <= known) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "SCHEMA_TOO_NEW",
                   absl::StrCat("the database has schema version ", version,
                                ", and this server knows only up to ", known,
                                "; run the newer server, or restore a backup from before it"));
}

}  // namespace ballast::server
