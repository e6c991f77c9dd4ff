// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_BULLETIN_H_
#define BALLAST_SERVER_STORE_POSTGRES_BULLETIN_H_

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "server/core/bulletin.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// The bulletin of the servers that share a schema of a PostgreSQL database, by LISTEN and NOTIFY on
// a connection of its own. While that cannot be had it tries again and keeps what is posted. The
// reader hears kAnything at the start and whenever notices may have been missed.
//
// Stop tells what was posted before it if there is a connection and PostgreSQL answers within a
// second. It waits for a connection that is being opened, or for its failure.
class PostgresBulletin : public Bulletin {
 public:
  // `conninfo`: as for PostgresConnection::Open. `clock`: one that goes by itself, since sockets
  // are waited for in real time. A connection that is silent for `patience` is asked for an answer,
  // and lost when it gives none for as long.
  PostgresBulletin(std::string conninfo, Clock& clock, absl::Duration patience = absl::Seconds(10));
  ~PostgresBulletin() override;
  PostgresBulletin(const PostgresBulletin&) = delete;
  PostgresBulletin& operator=(const PostgresBulletin&) = delete;

  void Start(NoticeReader& reader) override;
  void Stop() override;
  void Post(const Notice& notice) override;

 private:
  void Loop();
  // Tells and hears until Stop, which is OK, or until the connection fails.
  absl::Status Serve(PostgresConnection& connection);
  // Moves what was posted to payloads_ if it is time, and else says when it will be.
  absl::Time Collect(absl::Time now);
  void Hear(const std::vector<PostgresNotification>& notifications, int64_t own_session);
  // Waits until one of the descriptors can be read, or for `limit`.
  void Wait(int socket, absl::Duration limit) const;
  void NoteFailure(const absl::Status& status);
  void NoteAnswer();
  bool stopping();

  const std::string conninfo_;
  Clock& clock_;
  const absl::Duration patience_;
  const int wake_;  // an eventfd: something was posted, or it is to stop
  absl::Mutex mutex_;
  std::set<Notice> posted_ ABSL_GUARDED_BY(mutex_);
  absl::Time told_at_ ABSL_GUARDED_BY(mutex_);  // when posted_ is to be told
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // The thread's own.
  NoticeReader* reader_ = nullptr;
  std::deque<std::string> payloads_;  // to be sent, the first of them perhaps under way
  bool failing_ = false;
  absl::Duration pause_;
  std::thread thread_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_BULLETIN_H_
