// SPDX-License-Identifier: Apache-2.0
// On a real PostgreSQL server, as postgres_job_store_test.cc.
#include "server/store/postgres_bulletin.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/postgres_test_schema.h"
#include "server/testing/temp_dir.h"

namespace ballast::server {

void PrintTo(const Notice& notice, std::ostream* out) {
  *out << static_cast<int>(notice.kind) << ' ' << notice.name;
}

namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::PostgresTestSchema;
using testing::TempDir;

constexpr absl::Duration kLongestWait = absl::Seconds(30);
const Notice kAnything = {Notice::Kind::kAnything, ""};

Notice Job(const std::string& id) {
  return {Notice::Kind::kJobChanged, absl::StrCat("tenants/t/fineTuningJobs/", id)};
}

std::vector<Notice> Jobs(int count) {
  std::vector<Notice> jobs;
  for (int i = 0; i < count; ++i) jobs.push_back(Job(absl::StrCat(i)));
  return jobs;
}

// A server's bulletin and what it has heard.
class Server : public NoticeReader {
 public:
  explicit Server(const std::string& conninfo, absl::Duration patience = absl::Seconds(10))
      : bulletin_(conninfo, Clock::System(), patience) {}

  void Heard(const Notice& notice) override {
    absl::MutexLock lock(&mutex_);
    heard_.push_back(notice);
  }

  // Returns when it listens.
  void Start() {
    bulletin_.Start(*this);
    Await(kAnything);
    Forget();
  }
  void StartWithoutConnection() { bulletin_.Start(*this); }
  void Stop() { bulletin_.Stop(); }
  void Post(const Notice& notice) { bulletin_.Post(notice); }

  void Await(const Notice& notice) { AwaitAll({notice}); }
  void AwaitAll(const std::vector<Notice>& notices) {
    absl::MutexLock lock(&mutex_);
    const auto are_heard = [&] {
      mutex_.AssertHeld();
      const std::set<Notice> heard(heard_.begin(), heard_.end());
      return std::all_of(notices.begin(), notices.end(),
                         [&](const Notice& notice) { return heard.count(notice) > 0; });
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&are_heard), kLongestWait))
        << ::testing::PrintToString(notices) << " were not all heard";
  }
  std::vector<Notice> heard() {
    absl::MutexLock lock(&mutex_);
    return heard_;
  }
  void Forget() {
    absl::MutexLock lock(&mutex_);
    heard_.clear();
  }

 private:
  absl::Mutex mutex_;
  std::vector<Notice> heard_ ABSL_GUARDED_BY(mutex_);
  PostgresBulletin bulletin_;
};

// The connection string under a name by which sessions are found.
std::string Named(const PostgresTestSchema& schema, const std::string& name) {
  return absl::StrCat(schema.Conninfo(), " application_name=", name);
}

// Runs a statement in the schema, with one value, and returns the number that it gives.
int64_t Ask(const PostgresTestSchema& schema, const char* sql, const std::string& value) {
  const auto connection = PostgresConnection::Open(schema.Conninfo()).value();
  const auto rows = connection->Run(sql, {PostgresValue::Text(value)});
  EXPECT_OK(rows.status());
  return rows.ok() && rows->count() == 1 ? rows->IntAt(0, 0) : 0;
}

void Cut(const PostgresTestSchema& schema, const std::string& name) {
  EXPECT_EQ(Ask(schema,
                "SELECT pg_terminate_backend(pid, 5000)::int::bigint FROM pg_stat_activity"
                " WHERE application_name = $1",
                name),
            1);
}

TEST(PostgresBulletinTest, WhatOnePostsTheOthersHearAndItselfDoesNot) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo()), third(schema.Conninfo());
  for (Server* server : {&one, &other, &third}) server->Start();
  const std::vector<Notice> all = {
      Job("a"), {Notice::Kind::kWorkAdded, ""}, {Notice::Kind::kSampleOffered, ""}, kAnything};
  for (const Notice& notice : all) one.Post(notice);
  for (Server* server : {&other, &third}) server->Await(kAnything);
  other.Post(Job("b"));
  // Notifications come to all in the same order, so hers would have come before this one.
  one.Await(Job("b"));
  EXPECT_THAT(one.heard(), ElementsAre(Job("b")));
}

TEST(PostgresBulletinTest, EachKindIsHeardAsWhatItIs) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  one.Start();
  other.Start();
  for (const Notice& notice :
       {Job("a"), Notice{Notice::Kind::kWorkAdded, ""}, Notice{Notice::Kind::kSampleOffered, ""}}) {
    other.Forget();
    one.Post(notice);
    other.Await(notice);
    EXPECT_THAT(other.heard(), ElementsAre(notice));
  }
}

TEST(PostgresBulletinTest, ABurstOfTheSameIsHeardAFewTimes) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  one.Start();
  other.Start();
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < absl::Milliseconds(200)) one.Post(Job("a"));
  one.Post(Job("z"));
  other.Await(Job("z"));
  const std::vector<Notice> heard = other.heard();
  // Once every 5 ms at most, and once more at the end; clocks may differ by a tenth.
  EXPECT_LE(std::count(heard.begin(), heard.end(), Job("a")),
            (absl::Now() - begin) / absl::Milliseconds(4.5) + 1);
  EXPECT_THAT(heard, Contains(Job("a")));
}

TEST(PostgresBulletinTest, HundredsOfNamesAllArrive) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  other.Start();
  const std::vector<Notice> jobs = Jobs(500);
  // Before the start, so that they are one batch: of several payloads, of 8,000 bytes at most.
  for (const Notice& job : jobs) one.Post(job);
  one.Start();
  other.AwaitAll(jobs);
  EXPECT_THAT(other.heard(), Not(Contains(kAnything)));
}

TEST(PostgresBulletinTest, SeveralThreadsMayPost) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  one.Start();
  other.Start();
  const std::vector<Notice> jobs = Jobs(200);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&one, &jobs, i] {
      for (int j = 0; j < 50; ++j) one.Post(jobs[50 * i + j]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  other.AwaitAll(jobs);
}

TEST(PostgresBulletinTest, MoreThanIsWorthTellingIsAnything) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  other.Start();
  for (const Notice& job : Jobs(501)) one.Post(job);
  one.Start();
  other.Await(kAnything);
  EXPECT_THAT(other.heard(), ElementsAre(kAnything));
}

TEST(PostgresBulletinTest, ANameThatCannotBeToldIsAnything) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  one.Start();
  other.Start();
  // The server refuses the last one; it is no reason to stay away.
  for (const std::string& name :
       {std::string(8000, 'x'), std::string("two\nlines"), std::string("no\xffutf8")}) {
    other.Forget();
    one.Post({Notice::Kind::kJobChanged, name});
    other.Await(kAnything);
    one.Post(Job("a"));
    other.Await(Job("a"));
    EXPECT_THAT(other.heard(), ElementsAre(kAnything, Job("a")));
  }
}

TEST(PostgresBulletinTest, LinesOfANewerServerAreAnything) {
  PostgresTestSchema schema;
  Server server(schema.Conninfo());
  server.Start();
  constexpr char kNotify[] =
      "SELECT 1::bigint FROM pg_notify('ballast_' || md5(current_schema()::text), $1)";
  for (const char* payload : {"Zebra", "", "j"}) {
    server.Forget();
    Ask(schema, kNotify, payload);
    server.Await(kAnything);
    EXPECT_THAT(server.heard(), ElementsAre(kAnything));
  }
  server.Forget();
  Ask(schema, kNotify, absl::StrCat("Zebra\nJ", Job("a").name, "\n\nW"));
  server.Await(kAnything);
  EXPECT_THAT(server.heard(),
              ElementsAre(Job("a"), Notice{Notice::Kind::kWorkAdded, ""}, kAnything));
}

TEST(PostgresBulletinTest, AnotherSchemaHearsNothing) {
  PostgresTestSchema schema, other_schema;
  Server one(schema.Conninfo()), two(schema.Conninfo());
  Server three(other_schema.Conninfo()), four(other_schema.Conninfo());
  for (Server* server : {&one, &two, &three, &four}) server->Start();
  one.Post(Job("a"));
  two.Await(Job("a"));
  three.Post(Job("b"));
  four.Await(Job("b"));
  EXPECT_THAT(four.heard(), ElementsAre(Job("b")));
  one.Post(Job("c"));
  two.Await(Job("c"));
  EXPECT_THAT(two.heard(), ElementsAre(Job("a"), Job("c")));
}

TEST(PostgresBulletinTest, AListenerThatWasCutHearsAnythingAndThenTheRest) {
  PostgresTestSchema schema;
  const std::string name = absl::StrCat("cut_", getpid());
  Server one(schema.Conninfo()), other(Named(schema, name));
  one.Start();
  other.Start();
  for (int i = 0; i < 3; ++i) {
    Cut(schema, name);
    other.Await(kAnything);
    other.Forget();
    one.Post(Job(absl::StrCat(i)));
    other.Await(Job(absl::StrCat(i)));
  }
}

TEST(PostgresBulletinTest, WhatIsPostedToACutConnectionIsToldLater) {
  PostgresTestSchema schema;
  const std::string name = absl::StrCat("cut_", getpid());
  Server one(Named(schema, name)), other(schema.Conninfo());
  one.Start();
  other.Start();
  Cut(schema, name);
  one.Post(Job("a"));
  other.Await(Job("a"));
  EXPECT_THAT(other.heard(), Each(Job("a")));
  one.Await(kAnything);
}

// The folder of a server's socket, where there is a server or not.
class ServerFolder {
 public:
  const std::string& path() const { return folder_.path(); }
  void LetIn() { std::filesystem::create_symlink(PostgresTestSchema::ServerSocket(), socket_); }
  void Leave() { std::filesystem::remove(socket_); }

  // Takes so many connections and closes them, and leaves.
  void Refuse(int count) {
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    ASSERT_LT(socket_.size(), sizeof(address.sun_path));
    std::strncpy(address.sun_path, socket_.c_str(), sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(listener, 1), 0);
    for (int i = 0; i < count; ++i) close(accept(listener, nullptr, nullptr));
    Leave();
    close(listener);
  }

 private:
  const TempDir folder_;
  const std::string socket_ = folder_.path() + "/.s.PGSQL.5432";
};

TEST(PostgresBulletinTest, AServerThatComesAndGoesIsFoundAgain) {
  PostgresTestSchema schema;
  ServerFolder folder;
  Server one(schema.ConninfoThrough(folder.path())), other(schema.Conninfo());
  other.Start();
  one.StartWithoutConnection();
  one.Post(Job("a"));
  folder.Refuse(1);
  EXPECT_THAT(one.heard(), IsEmpty());
  folder.LetIn();
  other.Await(Job("a"));
  one.Await(kAnything);

  folder.Leave();
  one.Forget();
  schema.CutConnections();
  one.Post(Job("b"));
  folder.Refuse(2);
  one.Post(Job("c"));
  EXPECT_THAT(one.heard(), IsEmpty());
  other.Await(kAnything);
  folder.LetIn();
  one.Await(kAnything);
  other.Await(Job("b"));
  other.Await(Job("c"));
}

TEST(PostgresBulletinTest, WhatGathersWhileTheServerIsAwayIsBounded) {
  PostgresTestSchema schema;
  ServerFolder folder;
  Server one(schema.ConninfoThrough(folder.path())), other(schema.Conninfo());
  other.Start();
  one.StartWithoutConnection();
  for (const Notice& job : Jobs(300)) one.Post(job);
  folder.Refuse(1);
  for (const Notice& job : Jobs(600)) one.Post(job);
  folder.LetIn();
  other.Await(kAnything);
  EXPECT_THAT(other.heard(), ElementsAre(kAnything));
}

TEST(PostgresBulletinTest, AConnectionThatDoesNotAnswerIsGivenUp) {
  PostgresTestSchema schema;
  const std::string name = absl::StrCat("silent_", getpid());
  Server one(schema.Conninfo()), other(Named(schema, name), absl::Milliseconds(500));
  one.Start();
  other.Start();
  const auto session = static_cast<pid_t>(
      Ask(schema, "SELECT pid::bigint FROM pg_stat_activity WHERE application_name = $1", name));
  ASSERT_GT(session, 0);
  ASSERT_EQ(kill(session, SIGSTOP), 0);
  other.Post(Job("lost"));
  other.Await(kAnything);
  one.Await(Job("lost"));
  one.Post(Job("a"));
  other.Await(Job("a"));
  EXPECT_EQ(kill(session, SIGCONT), 0);
}

TEST(PostgresBulletinTest, AQuietConnectionThatAnswersIsKept) {
  PostgresTestSchema schema;
  const std::string name = absl::StrCat("quiet_", getpid());
  Server server(Named(schema, name), absl::Milliseconds(500));
  server.Start();
  ASSERT_OK_AND_ASSIGN(const auto connection, PostgresConnection::Open(schema.Conninfo()));
  // When it was asked.
  std::set<int64_t> times;
  const absl::Time begin = absl::Now();
  while (times.size() < 3 && absl::Now() - begin < kLongestWait) {
    ASSERT_OK_AND_ASSIGN(const auto rows,
                         connection->Run("SELECT (extract(epoch FROM query_start) * 1e6)::bigint"
                                         " FROM pg_stat_activity"
                                         " WHERE application_name = $1 AND query = 'SELECT 1'",
                                         {PostgresValue::Text(name)}));
    if (rows.count() == 1) times.insert(rows.IntAt(0, 0));
  }
  EXPECT_EQ(times.size(), 3u);
  EXPECT_THAT(server.heard(), IsEmpty());
}

TEST(PostgresBulletinTest, WhatWasPostedBeforeStopIsTold) {
  PostgresTestSchema schema;
  Server one(schema.Conninfo()), other(schema.Conninfo());
  one.Start();
  other.Start();
  const std::vector<Notice> jobs = Jobs(400);  // several payloads
  for (const Notice& job : jobs) one.Post(job);
  one.Stop();
  one.Post(Job("late"));
  one.Stop();
  other.AwaitAll(jobs);
  other.Post(Job("a"));
  other.Stop();
  EXPECT_THAT(other.heard(), Not(Contains(Job("late"))));
  EXPECT_THAT(one.heard(), IsEmpty());
}

TEST(PostgresBulletinTest, StopDoesNotWaitForAServerThatIsNotThere) {
  for (const char* conninfo :
       {"host=127.0.0.1 port=1 dbname=x", "host=/nowhere dbname=x", "not a connection string"}) {
    Server server(conninfo);
    server.StartWithoutConnection();
    for (const Notice& job : Jobs(1000)) server.Post(job);
    const absl::Time begin = absl::Now();
    server.Stop();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(3));
    EXPECT_THAT(server.heard(), IsEmpty());
  }
}

TEST(PostgresBulletinTest, StopDoesNotWaitForThePause) {
  PostgresTestSchema schema;
  ServerFolder folder;
  Server server(schema.ConninfoThrough(folder.path())), other(schema.Conninfo());
  server.StartWithoutConnection();
  folder.Refuse(5);  // the next try is after 1.6 s
  other.Start();     // takes long enough for the pause to have begun
  const absl::Time begin = absl::Now();
  server.Stop();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));
}

TEST(PostgresBulletinTest, StopsWithoutAStart) {
  Server server("host=/nowhere dbname=x");
  server.Post(Job("a"));
  server.Stop();
  server.Stop();
}

}  // namespace
}  // namespace ballast::server
