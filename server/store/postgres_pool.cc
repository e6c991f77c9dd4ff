// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_pool.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {
constexpr absl::Duration kLongestWait = absl::Seconds(5);
}  // namespace

absl::StatusOr<PostgresPool::Lease> PostgresPool::Take() {
  std::unique_ptr<PostgresConnection> connection;
  {
    absl::MutexLock lock(&mutex_);
    const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return free_ > 0; };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&is_free), kLongestWait)) {
      return WithRetry(MakeError(absl::StatusCode::kUnavailable, "STORE_BUSY",
                                 "all connections to PostgreSQL are in use; try again"),
                       absl::Seconds(1));
    }
    --free_;
    if (!open_.empty()) {
      connection = std::move(open_.back());
      open_.pop_back();
    }
  }
  if (connection == nullptr) {
    auto opened = PostgresConnection::Open(conninfo_);
    if (!opened.ok()) {
      GiveBack(nullptr);
      return opened.status();
    }
    connection = *std::move(opened);
  }
  return Lease(this, std::move(connection));
}

void PostgresPool::GiveBack(std::unique_ptr<PostgresConnection> connection) {
  absl::MutexLock lock(&mutex_);
  ++free_;
  if (connection == nullptr) return;
  if (connection->idle()) {
    open_.push_back(std::move(connection));
  } else if (!connection->alive()) {
    // What has cut this one has most likely cut the others, too.
    open_.clear();
  }
}

}  // namespace ballast::server
