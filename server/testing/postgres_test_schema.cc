// SPDX-License-Identifier: Apache-2.0
#include "server/testing/postgres_test_schema.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast::server::testing {
namespace {

constexpr char kFile[] = "BALLAST_POSTGRES_FILE";
constexpr int kConnections = 8;

std::string ServerConninfo() {
  const char* file = std::getenv(kFile);
  if (file == nullptr) return "host=/nowhere";
  return std::string(absl::StripAsciiWhitespace(ReadFile(file).value()));
}

}  // namespace

bool PostgresTestSchema::IsThere() { return std::getenv(kFile) != nullptr; }

PostgresTestSchema::PostgresTestSchema()
    : admin_(PostgresConnection::Open(ServerConninfo()).value()),
      name_(absl::StrCat("test_", RandomHex(64))) {
  EXPECT_OK(admin_->Execute(absl::StrCat("CREATE SCHEMA ", name_)));
}

PostgresTestSchema::~PostgresTestSchema() {
  EXPECT_OK(admin_->Execute(absl::StrCat("DROP SCHEMA ", name_, " CASCADE")));
}

std::string PostgresTestSchema::Conninfo() const {
  return absl::StrCat(ServerConninfo(), " application_name=", name_,
                      " options='-c search_path=", name_, "'");
}

std::string PostgresTestSchema::ConninfoThrough(const std::string& folder) const {
  // The last word for a key counts.
  return absl::StrCat(Conninfo(), " host=", folder);
}

std::string PostgresTestSchema::ServerSocket() {
  const std::string conninfo = ServerConninfo();
  const size_t begin = conninfo.find("host=") + 5;
  return absl::StrCat(conninfo.substr(begin, conninfo.find(' ', begin) - begin), "/.s.PGSQL.5432");
}

std::unique_ptr<PostgresJobStore> PostgresTestSchema::Open() const {
  return PostgresJobStore::Open(Conninfo(), kConnections, Clock::System(), RandomHex(64)).value();
}

std::string PostgresTestSchema::EverythingStored() {
  std::string all;
  for (const char* sql :
       {"SELECT scope || ' ' || id, record FROM base_models",
        "SELECT scope || ' ' || id, record FROM datasets",
        "SELECT scope || ' ' || id, record FROM jobs",
        "SELECT scope || ' ' || id, record FROM vectors",
        "SELECT scope || ' ' || id, record FROM tenants", "SELECT job, event FROM job_events",
        "SELECT request_id, result_name FROM requests", "SELECT blob_prefix, '' FROM garbage"}) {
    const auto connection = PostgresConnection::Open(Conninfo()).value();
    const auto rows = connection->Run(sql, {});
    EXPECT_OK(rows.status());
    for (int i = 0; rows.ok() && i < rows->count(); ++i) {
      absl::StrAppend(&all, rows->TextAt(i, 0), "\n", rows->TextAt(i, 1), "\n");
    }
  }
  return all;
}

void PostgresTestSchema::CutConnections() {
  // Known by their name, which Conninfo gives them.
  ASSERT_OK(
      admin_->Execute(absl::StrCat("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                                   " WHERE application_name = '",
                                   name_, "'")));
}

}  // namespace ballast::server::testing
