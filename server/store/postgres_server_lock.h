// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_SERVER_LOCK_H_
#define BALLAST_SERVER_STORE_POSTGRES_SERVER_LOCK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// Keeps a second server off a database: leases are in a server's memory, so that two would give the
// same work away. Held by a session, so it ends with the process. Thread safety: not thread-safe.
class PostgresServerLock {
 public:
  // Asks `wait` after each try that was in vain, which waits a while and is false to give up:
  // within half a minute PostgreSQL notices that a server is gone whose machine has vanished.
  // FAILED_PRECONDITION (STORE_IN_USE) when another server has the database, or a failure of
  // PostgresConnection.
  static absl::StatusOr<std::unique_ptr<PostgresServerLock>> Acquire(
      const std::string& conninfo, const std::function<bool()>& wait);

  // OK while it is held. Call it now and then: a session that was cut is made anew, and the lock is
  // taken again unless another server has had it meanwhile (STORE_IN_USE: stop then). Another
  // failure is PostgreSQL's, and may pass.
  absl::Status Check();

 private:
  explicit PostgresServerLock(std::string conninfo) : conninfo_(std::move(conninfo)) {}

  // Another has it: an empty result.
  absl::StatusOr<std::unique_ptr<PostgresConnection>> Try();

  const std::string conninfo_;
  std::unique_ptr<PostgresConnection> connection_;  // null when cut
  int64_t generation_ = 0;                          // how many servers have had the lock, with this
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_SERVER_LOCK_H_
