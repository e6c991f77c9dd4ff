// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_POOL_H_
#define BALLAST_SERVER_STORE_POSTGRES_POOL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// Connections that are opened when they are needed and kept for the next who needs one.
// Thread safety: thread-safe.
class PostgresPool {
 public:
  // A connection that goes back when this ends, unless it is broken or in a transaction. Thread
  // safety: not thread-safe.
  class Lease {
   public:
    Lease(PostgresPool* pool, std::unique_ptr<PostgresConnection> connection)
        : pool_(pool), connection_(std::move(connection)) {}
    ~Lease() {
      if (pool_ != nullptr) pool_->GiveBack(std::move(connection_));
    }
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), connection_(std::move(other.connection_)) {}
    Lease& operator=(Lease&&) = delete;

    PostgresConnection& operator*() const { return *connection_; }
    PostgresConnection* operator->() const { return connection_.get(); }

   private:
    PostgresPool* pool_;
    std::unique_ptr<PostgresConnection> connection_;
  };

  // At most `size` connections at once.
  PostgresPool(std::string conninfo, int size) : conninfo_(std::move(conninfo)), free_(size) {}

  // Waits a while for a free connection: UNAVAILABLE (STORE_BUSY). Failures of
  // PostgresConnection::Open.
  absl::StatusOr<Lease> Take();

 private:
  void GiveBack(std::unique_ptr<PostgresConnection> connection);

  const std::string conninfo_;
  absl::Mutex mutex_;
  int free_ ABSL_GUARDED_BY(mutex_);  // connections that may be taken, open or not
  std::vector<std::unique_ptr<PostgresConnection>> open_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_POOL_H_
