// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_POSTGRES_TEST_SCHEMA_H_
#define BALLAST_SERVER_TESTING_POSTGRES_TEST_SCHEMA_H_

#include <memory>
#include <string>

#include "server/store/postgres_connection.h"
#include "server/store/postgres_job_store.h"

namespace ballast::server::testing {

// A schema of a test's own on the PostgreSQL server whose connection string is in the file that
// BALLAST_POSTGRES_FILE names (tests/services/postgres.py); dropped at the end.
class PostgresTestSchema {
 public:
  // Whether this run of the tests has such a server.
  static bool IsThere();

  PostgresTestSchema();
  ~PostgresTestSchema();
  PostgresTestSchema(const PostgresTestSchema&) = delete;
  PostgresTestSchema& operator=(const PostgresTestSchema&) = delete;

  std::string Conninfo() const;
  // The same with the socket in another folder, and that of the server.
  std::string ConninfoThrough(const std::string& folder) const;
  static std::string ServerSocket();
  std::unique_ptr<PostgresJobStore> Open() const;
  // Keys and bytes of all tables.
  std::string EverythingStored();
  // Ends the sessions that work with the schema, as a restart of the server would.
  void CutConnections();

 private:
  std::unique_ptr<PostgresConnection> admin_;
  std::string name_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_POSTGRES_TEST_SCHEMA_H_
