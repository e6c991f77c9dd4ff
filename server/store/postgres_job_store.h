// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_JOB_STORE_H_
#define BALLAST_SERVER_STORE_POSTGRES_JOB_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "server/core/job_store.h"
#include "server/store/postgres_pool.h"

namespace ballast::server {

// A JobStore in a PostgreSQL database. Transactions run beside each other (READ COMMITTED) and wait
// for the rows that others hold. One that PostgreSQL has stopped, or that has lost its connection
// before its commit, is run again while PostgreSQL can be reached. One that lost its connection at
// the commit is looked for (table commits), and UNAVAILABLE (COMMIT_UNKNOWN) where that fails.
class PostgresJobStore : public JobStore {
 public:
  // Brings the schema up to date. `conninfo` as PostgresConnection::Open has it; at most
  // `connections` are open at once. `owner`: what owner() is; no other process may have the same.
  // Failures: those of PostgresConnection::Open and of MigratePostgresSchema.
  static absl::StatusOr<std::unique_ptr<PostgresJobStore>> Open(const std::string& conninfo,
                                                                int connections, Clock& clock,
                                                                const std::string& owner);

  absl::Status Update(const Body& body) override;
  absl::Status Read(const Body& body) override;
  bool shared() const override { return true; }
  const std::string& owner() const override { return owner_; }

 private:
  // What a transaction leaves behind, and nothing else does.
  struct Stamp {
    std::string connection;
    int64_t serial = 0;
  };

  PostgresJobStore(const std::string& conninfo, int connections, Clock& clock, std::string owner)
      : clock_(clock), owner_(std::move(owner)), pool_(conninfo, connections) {}

  // One run of `body`. `again`: what stopped it is no fault of its own, and nothing was changed.
  absl::Status TryUpdate(const Body& body, bool& again);
  absl::Status TryRead(const Body& body, bool& again);
  // Deletes the stamps of a connection before this one. A failure is of no consequence.
  static void ForgetOwn(PostgresConnection& connection, const Stamp& stamp);
  // Whether the transaction was committed whose connection was lost meanwhile: `lost` where that
  // cannot be found out.
  absl::StatusOr<bool> WasCommitted(const Stamp& stamp, const absl::Status& lost);

  Clock& clock_;
  const std::string owner_;
  PostgresPool pool_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_JOB_STORE_H_
