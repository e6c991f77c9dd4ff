// SPDX-License-Identifier: Apache-2.0
#include "server/testing/fake_job_store.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server::testing {
namespace {

absl::Status Exists() {
  return MakeError(absl::StatusCode::kAlreadyExists, "RECORD_EXISTS", "the record exists already");
}
absl::Status Missing() {
  return MakeError(absl::StatusCode::kNotFound, "RECORD_NOT_FOUND", "the record is not there");
}
auto OrderOf(const Row& row) { return std::tie(row.queue_key, row.scope, row.id); }

}  // namespace

class FakeTransaction : public Transaction {
 public:
  FakeTransaction(FakeJobStore::State& state, bool writable, const std::string& owner)
      : state_(state), writable_(writable), owner_(owner) {}

  absl::StatusOr<std::optional<Row>> Get(Kind kind, std::string_view scope, std::string_view id,
                                         Hold hold) override {
    const auto& rows = state_.rows[kind];
    if (hold >= Hold::kExclusive) held_.emplace(kind, scope, id);
    const auto it = rows.find({std::string(scope), std::string(id)});
    if (it == rows.end()) return std::optional<Row>();
    return std::optional<Row>(it->second);
  }

  absl::StatusOr<int64_t> Insert(Kind kind, const Row& row) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    Row stored = row;
    stored.sequence = ++state_.sequences[{kind, row.scope}];
    if (!state_.rows[kind].emplace(FakeJobStore::Key{row.scope, row.id}, stored).second) {
      return Exists();
    }
    held_.emplace(kind, row.scope, row.id);
    return stored.sequence;
  }

  absl::Status Replace(Kind kind, const Row& row) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    BALLAST_RETURN_IF_ERROR(CheckHeld(kind, row.scope, row.id));
    auto& rows = state_.rows[kind];
    const auto it = rows.find({row.scope, row.id});
    if (it == rows.end()) return Missing();
    const int64_t sequence = it->second.sequence;
    it->second = row;
    it->second.sequence = sequence;
    return absl::OkStatus();
  }

  absl::Status Delete(Kind kind, std::string_view scope, std::string_view id) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    BALLAST_RETURN_IF_ERROR(CheckHeld(kind, scope, id));
    state_.rows[kind].erase({std::string(scope), std::string(id)});
    if (kind != Kind::kJob) return absl::OkStatus();
    for (auto it = state_.events.begin(); it != state_.events.end();) {
      const bool of_job = std::get<0>(it->first) == scope && std::get<1>(it->first) == id;
      it = of_job ? state_.events.erase(it) : std::next(it);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<Row>> ListByScope(Kind kind, std::string_view scope,
                                               int64_t before_sequence, int limit) override {
    return Select(
        kind,
        [&](const Row& row) {
          return row.scope == scope && (before_sequence == 0 || row.sequence < before_sequence);
        },
        [](const Row& a, const Row& b) { return a.sequence > b.sequence; }, limit);
  }

  absl::StatusOr<std::vector<Row>> ListByState(Kind kind, int state, const StateCursor& after,
                                               int limit) override {
    const auto bound = std::tie(after.queue_key, after.scope, after.id);
    return Select(
        kind, [&](const Row& row) { return row.state == state && OrderOf(row) > bound; },
        [](const Row& a, const Row& b) { return OrderOf(a) < OrderOf(b); }, limit);
  }

  absl::StatusOr<std::optional<int64_t>> ShiftQueue(Kind kind, std::string_view scope, int state,
                                                    int64_t from, int64_t by) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    std::optional<int64_t> first;
    for (auto& [_, row] : state_.rows[kind]) {
      if (row.scope != scope || row.state != state || row.queue_key < from) continue;
      first = std::min(first.value_or(row.queue_key), row.queue_key);
      row.queue_key += by;
    }
    return first;
  }

  absl::StatusOr<int64_t> CountBefore(Kind kind, int state, const Row& before) override {
    return static_cast<int64_t>(Select(
                                    kind,
                                    [&](const Row& row) {
                                      return row.state == state && row.scope == before.scope &&
                                             OrderOf(row) < OrderOf(before);
                                    },
                                    [](const Row&, const Row&) { return false; }, INT32_MAX)
                                    .size());
  }

  absl::StatusOr<int64_t> CountOfScope(Kind kind, std::string_view scope,
                                       const std::vector<int>& states) override {
    const auto& rows = state_.rows[kind];
    return std::count_if(rows.begin(), rows.end(), [&](const auto& entry) {
      return entry.second.scope == scope &&
             std::find(states.begin(), states.end(), entry.second.state) != states.end();
    });
  }

  absl::StatusOr<std::optional<int64_t>> LastQueueKey(Kind kind, int state) override {
    std::optional<int64_t> last;
    for (const auto& [key, row] : state_.rows[kind]) {
      if (row.state == state) last = std::max(last.value_or(row.queue_key), row.queue_key);
    }
    return last;
  }

  absl::StatusOr<int64_t> CountState(Kind kind, int state) override {
    const auto& rows = state_.rows[kind];
    return std::count_if(rows.begin(), rows.end(),
                         [&](const auto& entry) { return entry.second.state == state; });
  }

  absl::Status AppendEvent(std::string_view scope, std::string_view job,
                           const EventRow& event) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    if (state_.rows[Kind::kJob].count({std::string(scope), std::string(job)}) == 0)
      return Missing();
    const bool added =
        state_.events
            .emplace(std::tuple(std::string(scope), std::string(job), event.sequence), event.bytes)
            .second;
    return added ? absl::OkStatus() : Exists();
  }

  absl::StatusOr<std::vector<EventRow>> ListEvents(std::string_view scope, std::string_view job,
                                                   int64_t after_sequence, int limit) override {
    std::vector<EventRow> events;
    for (const auto& [key, bytes] : state_.events) {
      if (std::get<0>(key) == scope && std::get<1>(key) == job &&
          std::get<2>(key) > after_sequence && static_cast<int>(events.size()) < limit) {
        events.push_back({std::get<2>(key), bytes});
      }
    }
    return events;
  }

  absl::StatusOr<std::optional<RequestRow>> GetRequest(std::string_view scope,
                                                       std::string_view request_id) override {
    const auto it = state_.requests.find({std::string(scope), std::string(request_id)});
    if (it == state_.requests.end()) return std::optional<RequestRow>();
    return std::optional<RequestRow>(it->second);
  }

  absl::Status PutRequest(std::string_view scope, std::string_view request_id,
                          const RequestRow& request) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    const bool added =
        state_.requests.emplace(FakeJobStore::Key{scope, request_id}, request).second;
    return added ? absl::OkStatus() : Exists();
  }

  using Transaction::AddGarbage;
  absl::Status AddGarbage(std::string_view blob_prefix, std::string_view holder) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    std::string& known = state_.garbage[std::string(blob_prefix)];
    if (!holder.empty()) known = holder;
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<GarbageRow>> ListGarbage(std::string_view after, int limit) override {
    std::vector<GarbageRow> list;
    for (auto it = state_.garbage.upper_bound(std::string(after));
         it != state_.garbage.end() && static_cast<int>(list.size()) < limit; ++it) {
      list.push_back({it->first, it->second});
    }
    return list;
  }

  absl::StatusOr<std::optional<GarbageRow>> GetGarbage(std::string_view blob_prefix) override {
    const auto it = state_.garbage.find(std::string(blob_prefix));
    if (it == state_.garbage.end()) return std::optional<GarbageRow>();
    return std::optional<GarbageRow>(GarbageRow{it->first, it->second});
  }

  absl::Status RemoveGarbage(std::string_view blob_prefix) override {
    BALLAST_RETURN_IF_ERROR(CheckWritable());
    state_.garbage.erase(std::string(blob_prefix));
    return absl::OkStatus();
  }

  const std::string& owner() const override { return owner_; }

 private:
  absl::Status CheckWritable() const {
    if (writable_) return absl::OkStatus();
    return MakeError(absl::StatusCode::kInternal, "STORE_READ_ONLY", "this transaction only reads");
  }

  // The fake runs one transaction at a time; it asks for what others rely on.
  absl::Status CheckHeld(Kind kind, std::string_view scope, std::string_view id) const {
    if (held_.count({kind, std::string(scope), std::string(id)}) != 0) return absl::OkStatus();
    return MakeError(absl::StatusCode::kInternal, "ROW_NOT_HELD",
                     absl::StrCat("a row is changed that was not read with Hold::kExclusive: ",
                                  std::string(id)));
  }

  template <typename Match, typename Less>
  std::vector<Row> Select(Kind kind, Match match, Less less, int limit) {
    std::vector<Row> rows;
    for (const auto& [key, row] : state_.rows[kind]) {
      if (match(row)) rows.push_back(row);
    }
    std::sort(rows.begin(), rows.end(), less);
    if (static_cast<int>(rows.size()) > limit) rows.resize(static_cast<size_t>(limit));
    return rows;
  }

  FakeJobStore::State& state_;
  const bool writable_;
  const std::string& owner_;
  std::set<std::tuple<Kind, std::string, std::string>> held_;
};

class FakeJobStore::View : public JobStore {
 public:
  View(FakeJobStore& store, std::string owner) : store_(store), owner_(std::move(owner)) {}
  absl::Status Update(const Body& body) override { return store_.UpdateAs(owner_, body); }
  absl::Status Read(const Body& body) override { return store_.ReadAs(owner_, body); }
  bool shared() const override { return store_.shared(); }
  const std::string& owner() const override { return owner_; }

 private:
  FakeJobStore& store_;
  const std::string owner_;
};

std::unique_ptr<JobStore> FakeJobStore::ViewAsServerForTest(const std::string& owner) {
  return std::make_unique<View>(*this, owner);
}

absl::Status FakeJobStore::UpdateAs(const std::string& owner, const Body& body) {
  absl::MutexLock lock(&mutex_);
  // Twice, as if the first had been stopped at its end: a body must bear that.
  State stopped = state_;
  FakeTransaction first(stopped, /*writable=*/true, owner);
  BALLAST_RETURN_IF_ERROR(body(first));
  State changed = state_;
  FakeTransaction transaction(changed, /*writable=*/true, owner);
  BALLAST_RETURN_IF_ERROR(body(transaction));
  if (!fail_next_.ok()) return std::exchange(fail_next_, absl::OkStatus());
  state_ = std::move(changed);
  if (!std::exchange(lose_next_, false)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "COMMIT_UNKNOWN", "the answer was lost");
}

absl::Status FakeJobStore::ReadAs(const std::string& owner, const Body& body) {
  absl::MutexLock lock(&mutex_);
  FakeTransaction transaction(state_, /*writable=*/false, owner);
  return body(transaction);
}

void FakeJobStore::LoseNextAnswerForTest() {
  absl::MutexLock lock(&mutex_);
  lose_next_ = true;
}

void FakeJobStore::FailNextCommitForTest(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  fail_next_ = std::move(status);
}

}  // namespace ballast::server::testing
