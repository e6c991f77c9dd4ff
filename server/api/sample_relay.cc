// SPDX-License-Identifier: Apache-2.0
#include "server/api/sample_relay.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/rpc/grpc_status.h"
#include "server/api/platform_fault.h"
#include "server/core/live_servers.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

using worker::v1::SampleOrder;

// States of records.
constexpr int kWaiting = 0;
constexpr int kTaken = 1;
// How often records are looked through for those that nobody wants.
constexpr absl::Duration kCleanPeriod = absl::Minutes(1);
// Of a server's own: those that are offered, and those that are to go.
constexpr int kMostOwn = 2 * static_cast<int>(SampleBroker::kMaxOpen);
// Offers beyond those wanted: other servers may be quicker.
constexpr size_t kSpare = 4;

RowKey KeyOf(const SampleRecord& record) {
  return {Kind::kSample, record.server(), record.order().sample_id(), Hold::kExclusiveOrNone};
}

// Deletes the record unless somebody holds it, who is then about to change or delete it.
absl::Status DeleteUnlessHeld(Transaction& tx, const RowKey& key) {
  BALLAST_ASSIGN_OR_RETURN(const auto row,
                           tx.Get(key.kind, key.scope, key.id, Hold::kExclusiveOrNone));
  return row.has_value() ? tx.Delete(key.kind, key.scope, key.id) : absl::OkStatus();
}

}  // namespace

// What a worker here has said of another server's order, and what of that its record has.
class SampleRelay::Reply : public SampleSink {
 public:
  explicit Reply(const SampleRecord& record)
      : server_(record.server()), id_(record.order().sample_id()), offered_(record.create_time()) {}

  void Sign() override {
    absl::MutexLock lock(&mutex_);
    alive_ = true;
  }
  void Piece(const v1::SampleResponse& response) override {
    absl::MutexLock lock(&mutex_);
    pieces_.push_back(response);
  }
  void End(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    end_ = ToRpcStatus(status);
  }

  const std::string& id() const { return id_; }
  RowKey key() const { return {Kind::kSample, server_, id_, Hold::kExclusive}; }

  // Whether there is something to write.
  bool Due(absl::Time now) {
    absl::MutexLock lock(&mutex_);
    return !pieces_.empty() || end_.has_value() || (alive_ && next_sign_ <= now);
  }

  // Puts into the record what it has not. False when it is no longer this order's, taken by
  // `server`.
  bool AddTo(SampleRecord& record, const std::string& server) {
    absl::MutexLock lock(&mutex_);
    const int64_t known = record.pieces_size() - written_;
    if (record.taken_by() != server || record.has_end() || known < 0 ||
        FromTimestamp(record.create_time()) != FromTimestamp(offered_)) {
      return false;
    }
    // A write of which it was not known whether it was made may have been.
    for (size_t i = static_cast<size_t>(known); i < pieces_.size(); ++i) {
      *record.add_pieces() = pieces_[i];
    }
    record.set_sign(record.sign() + 1);
    if (end_.has_value()) *record.mutable_end() = *end_;
    return true;
  }

  // The record has `pieces` now.
  void Written(absl::Time now, int64_t pieces) {
    absl::MutexLock lock(&mutex_);
    for (; written_ < pieces; ++written_) pieces_.pop_front();
    alive_ = false;
    next_sign_ = now + kSignPeriod;
  }

 private:
  const std::string server_;
  const std::string id_;
  const google::protobuf::Timestamp offered_;
  absl::Mutex mutex_;
  std::deque<v1::SampleResponse> pieces_ ABSL_GUARDED_BY(mutex_);  // those not written yet
  int64_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<google::rpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool alive_ ABSL_GUARDED_BY(mutex_) = false;  // signs since the last write
  absl::Time next_sign_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

SampleRelay::SampleRelay(JobStore& store, SampleBroker& broker, Clock& clock, Bulletin* bulletin)
    : store_(store), broker_(broker), clock_(clock), bulletin_(bulletin) {}

SampleRelay::~SampleRelay() { loop_.Stop(); }

void SampleRelay::Start() {
  if (store_.shared()) loop_.Start([this] { RunOnce(); }, kCleanPeriod);
}

bool SampleRelay::Enter(absl::Time now, bool idle) {
  if (!store_.shared()) return false;
  if (own_records_ || broker_.HasWaiting() || HasReplies(now)) loop_.Wake();
  // A worker that came while an order was about to be offered has not seen it.
  const bool look = idle && (offered_.exchange(false) || now >= next_look_);
  if (!look) return false;
  next_look_ = now + kLookPeriod;
  Heard();
  return true;
}

bool SampleRelay::MayHaveOffers() const {
  return store_.shared() && !draining_ && heard_.load() != seen_.load();
}

absl::StatusOr<std::vector<SampleOrder>> SampleRelay::TakeOffers(absl::Time now,
                                                                 const std::string& worker_id,
                                                                 size_t most,
                                                                 const std::string& base_digest) {
  std::vector<SampleOrder> orders;
  if (!store_.shared() || draining_) return orders;
  // Before the look: what is told of meanwhile is looked for again.
  const int64_t heard = heard_.load();
  bool any = false;
  std::vector<SampleRecord> fitting;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) {
    return ForEachInState<SampleRecord>(
        tx, kWaiting, [&](SampleRecord record) -> absl::StatusOr<bool> {
          any = true;
          const bool fits =
              base_digest.empty() || record.order().base_model().digest() == base_digest;
          if (fits) fitting.push_back(std::move(record));
          return fitting.size() < most + kSpare;
        });
  }));
  if (!any) seen_ = heard;
  if (fitting.empty()) return orders;

  const std::string& self = store_.owner();
  std::vector<std::string> own;
  for (const SampleRecord& record : fitting) {
    if (record.server() == self) own.push_back(record.order().sample_id());
  }
  {
    absl::MutexLock lock(&mutex_);
    taking_back_.insert(own.begin(), own.end());
  }
  const absl::Cleanup end = [&] {
    absl::MutexLock lock(&mutex_);
    for (const std::string& id : own) taking_back_.erase(taking_back_.find(id));
  };
  std::vector<SampleRecord> taken;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    taken.clear();
    for (const SampleRecord& listed : fitting) {
      if (taken.size() == most) break;
      const RowKey key = KeyOf(listed);
      BALLAST_ASSIGN_OR_RETURN(auto record,
                               GetRecord<SampleRecord>(tx, key.scope, key.id, key.hold));
      if (!record.has_value() || !record->taken_by().empty()) continue;
      taken.push_back(*record);
      if (key.scope == self) {
        BALLAST_RETURN_IF_ERROR(tx.Delete(key.kind, key.scope, key.id));
        continue;
      }
      record->set_taken_by(self);
      record->set_sign(record->sign() + 1);
      // Both servers know it now.
      record->clear_order();
      record->mutable_order()->set_sample_id(key.id);
      BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *record));
    }
    return absl::OkStatus();
  }));
  for (SampleRecord& record : taken) {
    if (record.server() == self) {
      auto order = broker_.TakeBack(now, record.order().sample_id(), worker_id);
      if (order.has_value()) orders.push_back(*std::move(order));
      continue;
    }
    const auto reply = std::make_shared<Reply>(record);
    {
      absl::MutexLock lock(&mutex_);
      replies_[reply->id()] = reply;
    }
    broker_.Adopt(now, record.order(), reply, worker_id);
    orders.push_back(std::move(*record.mutable_order()));
  }
  return orders;
}

void SampleRelay::Stop() {
  Drain();
  loop_.Stop();
  if (std::exchange(stopped_, true) || !store_.shared()) return;
  broker_.EndAll();
  const absl::Time now = clock_.Now();
  Report(WriteReplies(now));
  Report(TendOffers(now));
}

void SampleRelay::RunOnce() {
  if (!store_.shared()) return;
  const absl::Time now = clock_.Now();
  absl::Status status = WriteReplies(now);
  status.Update(TendOffers(now));
  if (now >= next_clean_) {
    next_clean_ = now + kCleanPeriod;
    status.Update(DeleteLeftovers(now));
  }
  Report(status);
}

void SampleRelay::Report(const absl::Status& status) {
  if (!status.ok() && !failing_) {
    spdlog::warn("sampling orders cannot be passed between servers, it is tried again: {}",
                 ForLog(status));
  }
  failing_ = !status.ok();
}

bool SampleRelay::HasReplies(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, reply] : replies_) {
    if (reply->Due(now)) return true;
  }
  return false;
}

void SampleRelay::Forget(const std::shared_ptr<Reply>& reply) {
  absl::MutexLock lock(&mutex_);
  const auto it = replies_.find(reply->id());
  // The order may have been taken once more.
  if (it != replies_.end() && it->second == reply) replies_.erase(it);
}

absl::Status SampleRelay::WriteReplies(absl::Time now) {
  std::vector<std::shared_ptr<Reply>> due;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, reply] : replies_) {
      if (reply->Due(now)) due.push_back(reply);
    }
  }
  if (due.empty()) return absl::OkStatus();
  std::vector<RowKey> keys;
  for (const auto& reply : due) keys.push_back(reply->key());
  struct Outcome {
    bool gone = false;
    bool ended = false;
    int64_t pieces = 0;
  };
  std::vector<Outcome> outcomes;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    outcomes.assign(due.size(), {});
    BALLAST_RETURN_IF_ERROR(tx.Prefetch(keys));
    for (size_t i = 0; i < due.size(); ++i) {
      BALLAST_ASSIGN_OR_RETURN(
          auto record, GetRecord<SampleRecord>(tx, keys[i].scope, keys[i].id, keys[i].hold));
      if (!record.has_value() || !due[i]->AddTo(*record, store_.owner())) {
        outcomes[i].gone = true;
        continue;
      }
      outcomes[i].ended = record->has_end();
      outcomes[i].pieces = record->pieces_size();
      BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *record));
    }
    return absl::OkStatus();
  }));
  for (size_t i = 0; i < due.size(); ++i) {
    if (outcomes[i].gone) {
      broker_.Drop(due[i]->id(), *due[i]);
    } else {
      due[i]->Written(now, outcomes[i].pieces);
    }
    if (outcomes[i].gone || outcomes[i].ended) Forget(due[i]);
  }
  return absl::OkStatus();
}

absl::Status SampleRelay::TendOffers(absl::Time now) {
  const bool offered = broker_.Offer(now, draining_ ? absl::InfiniteDuration() : kOfferAfter);
  if (offered) own_records_ = true;
  if (!own_records_) return absl::OkStatus();
  const std::string& self = store_.owner();
  std::vector<SampleRecord> records;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kSample, self, 0, kMostOwn));
    for (const Row& row : rows) {
      BALLAST_ASSIGN_OR_RETURN(records.emplace_back(), FromRow<SampleRecord>(row));
    }
    return absl::OkStatus();
  }));
  own_records_ = offered || !records.empty();
  std::set<std::string> there;
  std::vector<RowKey> done;
  for (const SampleRecord& record : records) {
    there.insert(record.order().sample_id());
    if (!broker_.Follow(now, record)) done.push_back(KeyOf(record));
  }
  {
    // Whoever has taken one back by now has told the broker so.
    absl::MutexLock lock(&mutex_);
    there.insert(taking_back_.begin(), taking_back_.end());
  }
  // New ones, and those whose record the store has lost: it keeps no samples over a crash.
  std::vector<SampleOffer> offers = broker_.OffersWithout(there);
  if (draining_) offers.clear();
  if (done.empty() && offers.empty()) return absl::OkStatus();
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    for (const RowKey& key : done) BALLAST_RETURN_IF_ERROR(DeleteUnlessHeld(tx, key));
    for (const SampleOffer& offer : offers) {
      SampleRecord record;
      record.set_server(self);
      *record.mutable_order() = offer.order;
      *record.mutable_create_time() = ToTimestamp(offer.time);
      BALLAST_RETURN_IF_ERROR(InsertRecord(tx, record));
    }
    return absl::OkStatus();
  }));
  if (offers.empty()) return absl::OkStatus();
  Heard();
  offered_ = true;
  if (bulletin_ != nullptr) bulletin_->Post({Notice::Kind::kSampleOffered, ""});
  return absl::OkStatus();
}

absl::Status SampleRelay::DeleteLeftovers(absl::Time now) {
  std::map<std::string, bool> runs;  // servers
  decltype(known_) known;
  std::vector<RowKey> leftovers;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    const auto visit = [&](const SampleRecord& record) -> absl::StatusOr<bool> {
      const std::string& server = record.server();
      if (runs.count(server) == 0) {
        BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, server));
        runs[server] = elsewhere || server == store_.owner();
      }
      const std::pair key(server, record.order().sample_id());
      const auto before = known_.find(key);
      const absl::Time since = before == known_.end() ? now : before->second;
      known[key] = since;
      if (since + kMaxAge <= now || !runs[server]) leftovers.push_back(KeyOf(record));
      return true;
    };
    BALLAST_RETURN_IF_ERROR(ForEachInState<SampleRecord>(tx, kWaiting, visit));
    return ForEachInState<SampleRecord>(tx, kTaken, visit);
  }));
  known_ = std::move(known);
  if (leftovers.empty()) return absl::OkStatus();
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    for (const RowKey& key : leftovers) BALLAST_RETURN_IF_ERROR(DeleteUnlessHeld(tx, key));
    return absl::OkStatus();
  }));
  spdlog::info("deleted: {} sampling orders that nobody waits for", leftovers.size());
  return absl::OkStatus();
}

}  // namespace ballast::server
