// SPDX-License-Identifier: Apache-2.0
#include "server/store/postgres_bulletin.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

constexpr absl::Duration kGather = absl::Milliseconds(5);  // from the first notice of a batch
constexpr absl::Duration kShortestPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(5);
constexpr absl::Duration kFarewell = absl::Seconds(1);
constexpr size_t kMostNotices = 500;        // of a batch; more are kAnything
constexpr size_t kMostPayloadBytes = 7000;  // PostgreSQL takes less than 8,000

// A notice need not outlive a crash, so nobody waits for the disk.
constexpr char kSession[] = "SET synchronous_commit = off";
// A channel for each schema; and the session's number as notifications have it, of which a pooler
// in between gives its clients another.
constexpr char kWhere[] =
    "SELECT 'ballast_' || md5(current_schema()::text), pg_backend_pid()::bigint";
constexpr char kNotify[] = "SELECT pg_notify($1, $2)";
constexpr char kAsk[] = "SELECT 1";

// One line of a payload: a letter and the name.
constexpr std::pair<Notice::Kind, char> kLetters[] = {{Notice::Kind::kJobChanged, 'J'},
                                                      {Notice::Kind::kWorkAdded, 'W'},
                                                      {Notice::Kind::kSampleOffered, 'S'},
                                                      {Notice::Kind::kAnything, 'A'}};

Notice Anything() { return {Notice::Kind::kAnything, ""}; }

std::string LineOf(const Notice& notice) {
  for (const auto& [kind, letter] : kLetters) {
    if (kind == notice.kind) return absl::StrCat(std::string(1, letter), notice.name);
  }
  return LineOf(Anything());
}

Notice NoticeOf(const std::string& line) {
  for (const auto& [kind, letter] : kLetters) {
    if (!line.empty() && line[0] == letter) return {kind, line.substr(1)};
  }
  return Anything();  // a newer server's
}

// Payloads that tell of all.
std::deque<std::string> PayloadsOf(const std::set<Notice>& notices) {
  std::deque<std::string> payloads;
  for (const Notice& notice : notices) {
    const std::string line = LineOf(notice);
    if (payloads.empty() || payloads.back().size() + 1 + line.size() > kMostPayloadBytes) {
      payloads.push_back(line);
    } else {
      absl::StrAppend(&payloads.back(), "\n", line);
    }
  }
  return payloads;
}

}  // namespace

PostgresBulletin::PostgresBulletin(std::string conninfo, Clock& clock, absl::Duration patience)
    : conninfo_(std::move(conninfo)),
      clock_(clock),
      patience_(patience),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      pause_(kShortestPause) {
  if (wake_ < 0) std::abort();  // out of descriptors
}

PostgresBulletin::~PostgresBulletin() {
  Stop();
  close(wake_);
}

void PostgresBulletin::Start(NoticeReader& reader) {
  reader_ = &reader;
  thread_ = std::thread([this] { Loop(); });
}

void PostgresBulletin::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  eventfd_write(wake_, 1);
  if (thread_.joinable()) thread_.join();
}

void PostgresBulletin::Post(const Notice& notice) {
  const bool fits =
      notice.name.size() < kMostPayloadBytes && notice.name.find('\n') == std::string::npos;
  {
    absl::MutexLock lock(&mutex_);
    if (posted_.count(Anything()) > 0) return;  // it says what this one would
    const bool is_first = posted_.empty();
    if (is_first) told_at_ = clock_.Now() + kGather;
    posted_.insert(notice);
    if (!fits || posted_.size() > kMostNotices) posted_ = {Anything()};
    if (!is_first) return;
  }
  eventfd_write(wake_, 1);
}

void PostgresBulletin::Loop() {
  while (!stopping()) {
    absl::Status status;
    {
      const auto connection = PostgresConnection::Open(conninfo_);
      status = connection.ok() ? Serve(**connection) : connection.status();
    }
    if (status.ok() || stopping()) return;
    NoteFailure(status);
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), pause_)) return;
    pause_ = std::min(2 * pause_, kLongestPause);
  }
}

absl::Status PostgresBulletin::Serve(PostgresConnection& connection) {
  BALLAST_RETURN_IF_ERROR(connection.Execute(kSession));
  BALLAST_ASSIGN_OR_RETURN(const PostgresRows where, connection.Run(kWhere, {}));
  const std::string channel = where.TextAt(0, 0);
  const int64_t own_session = where.IntAt(0, 1);
  BALLAST_RETURN_IF_ERROR(connection.Execute(absl::StrCat("LISTEN \"", channel, "\"")));
  reader_->Heard(Anything());

  enum class Running { kNothing, kNotify, kAsk } running = Running::kNothing;
  // The last sign of life, or the question for one: the first is asked at once.
  absl::Time since = absl::InfinitePast();
  absl::Time leave_at = absl::InfiniteFuture();
  while (true) {
    std::vector<PostgresNotification> notifications;
    BALLAST_ASSIGN_OR_RETURN(const bool ended, connection.Receive(notifications));
    Hear(notifications, own_session);
    const absl::Time now = clock_.Now();
    if (!notifications.empty()) since = now;
    if (ended && running != Running::kNothing) {
      NoteAnswer();
      if (running == Running::kNotify) payloads_.pop_front();
      running = Running::kNothing;
      since = now;
    }

    const bool leaves = stopping();  // before Collect: what was posted before Stop is told
    const absl::Time told_at = running == Running::kNothing ? Collect(now) : leave_at;
    if (running == Running::kNothing && !payloads_.empty()) {
      BALLAST_RETURN_IF_ERROR(connection.Send(
          kNotify, {PostgresValue::Text(channel), PostgresValue::Text(payloads_.front())}));
      running = Running::kNotify;
      since = now;
    } else if (running == Running::kNothing && leaves) {
      return absl::OkStatus();
    } else if (now - since >= patience_) {
      if (running != Running::kNothing) {
        return MakeError(absl::StatusCode::kUnavailable, "STORE_IO", "PostgreSQL does not answer");
      }
      BALLAST_RETURN_IF_ERROR(connection.Send(kAsk, {}));
      running = Running::kAsk;
      since = now;
    }
    if (leaves) leave_at = std::min(leave_at, now + kFarewell);
    if (now >= leave_at) return absl::OkStatus();
    Wait(connection.socket(), std::min({told_at, since + patience_, leave_at}) - now);
  }
}

absl::Time PostgresBulletin::Collect(absl::Time now) {
  std::set<Notice> batch;
  {
    absl::MutexLock lock(&mutex_);
    if (posted_.empty() || !payloads_.empty()) return absl::InfiniteFuture();
    if (now < told_at_ && !stopping_) return told_at_;
    batch.swap(posted_);
  }
  payloads_ = PayloadsOf(batch);
  return absl::InfiniteFuture();
}

void PostgresBulletin::Hear(const std::vector<PostgresNotification>& notifications,
                            int64_t own_session) {
  std::set<Notice> heard;
  for (const PostgresNotification& one : notifications) {
    if (one.sender == own_session) continue;
    const std::vector<std::string> lines = absl::StrSplit(one.payload, '\n');
    for (const std::string& line : lines) heard.insert(NoticeOf(line));
  }
  for (const Notice& notice : heard) reader_->Heard(notice);
}

void PostgresBulletin::Wait(int socket, absl::Duration limit) const {
  const timespec timeout = absl::ToTimespec(std::max(limit, absl::ZeroDuration()));
  pollfd ends[] = {{socket, POLLIN, 0}, {wake_, POLLIN, 0}};
  ppoll(ends, 2, &timeout, nullptr);  // a signal is as good a reason to look as any
  eventfd_t ignored;
  eventfd_read(wake_, &ignored);
}

void PostgresBulletin::NoteFailure(const absl::Status& status) {
  // The server has refused what it was to tell: it would refuse it again.
  if (!absl::IsUnavailable(status) && !payloads_.empty()) payloads_ = {LineOf(Anything())};
  if (std::exchange(failing_, true)) return;
  // libpq speaks in several lines.
  spdlog::warn("notices between servers do not go through, it is tried again: {}",
               absl::StrReplaceAll(status.message(), {{"\n\t", " "}, {"\n", " "}}));
}

void PostgresBulletin::NoteAnswer() {
  pause_ = kShortestPause;
  if (std::exchange(failing_, false)) spdlog::info("notices between servers go through again");
}

bool PostgresBulletin::stopping() {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

}  // namespace ballast::server
