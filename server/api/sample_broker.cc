// SPDX-License-Identifier: Apache-2.0
#include "server/api/sample_broker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/utf8.h"
#include "common/rpc/grpc_status.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

// Bounds what a worker can make a slow customer's connection hold in memory.
constexpr int64_t kMaxReplyBytes = int64_t{1} << 20;
constexpr int64_t kMaxReplyPieces = 8192;
// How much later than an order's own server the one that has adopted it gives up a worker without a
// sign of life: the order may wait once more, which is not for this one to say.
constexpr absl::Duration kAdoptedLonger = absl::Seconds(10);

absl::Status Gone() {
  return MakeError(absl::StatusCode::kCancelled, "SAMPLE_GONE",
                   "nobody waits for this reply any more; drop it");
}

absl::Status WorkerLost() {
  return WithRetry(MakeError(absl::StatusCode::kUnavailable, "WORKER_LOST",
                             "the worker that was answering is gone; ask again"),
                   absl::Seconds(5));
}

// What the customer sees of a worker's failure: the text of a user's error, the reason of any
// other.
absl::Status StatusOf(const v1::JobError& error) {
  if (error.kind() == v1::JobError::USER) {
    return FieldError("messages", error.reason(), ValidUtf8(error.message(), 1000));
  }
  return WithRetry(
      MakeError(absl::StatusCode::kUnavailable,
                error.reason().empty() ? "WORKER_FAILED" : ValidUtf8(error.reason(), 63),
                "the worker could not answer; ask again, and tell the operator if it goes on"),
      absl::Seconds(5));
}

}  // namespace

SampleBroker::Entry SampleBroker::MakeEntry(worker::v1::SampleOrder order,
                                            std::shared_ptr<SampleSink> sink) {
  Entry entry;
  for (const auto& file : order.base_model().files()) entry.blobs.insert(file.blob());
  if (!order.adapter_blob().empty()) entry.blobs.insert(order.adapter_blob());
  entry.sink = std::move(sink);
  entry.order = std::move(order);
  return entry;
}

absl::Status SampleBroker::Submit(absl::Time now, worker::v1::SampleOrder order,
                                  std::shared_ptr<SampleSink> sink) {
  absl::MutexLock lock(&mutex_);
  size_t open = 0;
  size_t of_tenant = 0;
  for (const auto& [id, entry] : entries_) {
    if (entry.adopted) continue;
    ++open;
    if (entry.order.request().parent() == order.request().parent()) ++of_tenant;
  }
  if (of_tenant >= kMaxOpenOfTenant) {
    return WithRetry(
        MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_SAMPLES",
                  absl::StrCat("you wait for ", of_tenant,
                               " replies already, the most at a time; ask again after one of them"),
                  {{"limit", absl::StrCat(kMaxOpenOfTenant)}}),
        absl::Seconds(5));
  }
  if (open >= kMaxOpen) {
    return WithRetry(MakeError(absl::StatusCode::kResourceExhausted, "SAMPLE_QUEUE_FULL",
                               "too many replies are being waited for; ask again later"),
                     absl::Seconds(10));
  }
  const std::string id = order.sample_id();
  Entry entry = MakeEntry(std::move(order), std::move(sink));
  entry.number = next_number_++;
  entry.deadline = now + kTakeTimeout;
  entries_[id] = std::move(entry);
  return absl::OkStatus();
}

void SampleBroker::Cancel(const std::string& sample_id) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(sample_id);
  if (it == entries_.end()) return;
  it->second.sink->End(absl::CancelledError("the client went away"));
  entries_.erase(it);
}

std::vector<worker::v1::SampleOrder> SampleBroker::Take(absl::Time now,
                                                        const std::string& worker_id, size_t most,
                                                        const std::string& base_digest) {
  absl::MutexLock lock(&mutex_);
  std::vector<Entry*> waiting;
  for (auto& [id, entry] : entries_) {
    const bool fits = base_digest.empty() || entry.order.base_model().digest() == base_digest;
    if (entry.waits() && fits) waiting.push_back(&entry);
  }
  std::sort(waiting.begin(), waiting.end(),
            [](const Entry* a, const Entry* b) { return a->number < b->number; });
  if (waiting.size() > most) waiting.resize(most);
  std::vector<worker::v1::SampleOrder> orders;
  for (Entry* entry : waiting) {
    entry->worker_id = worker_id;
    entry->alive = false;
    entry->deadline = now + kFirstSignTimeout;
    orders.push_back(entry->order);
  }
  return orders;
}

bool SampleBroker::HasWaiting() const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const auto& entry) { return entry.second.waits(); });
}

SampleBroker::Entry* SampleBroker::FindTaken(absl::Time now, const std::string& sample_id,
                                             const std::string& worker_id) {
  const auto it = entries_.find(sample_id);
  if (it == entries_.end() || worker_id.empty() || it->second.worker_id != worker_id) {
    return nullptr;
  }
  it->second.alive = true;
  it->second.deadline = now + kPieceTimeout;
  it->second.sink->Sign();
  return &it->second;
}

absl::Status SampleBroker::CheckReadable(absl::Time now, const std::string& sample_id,
                                         const std::string& worker_id, const std::string& blob) {
  absl::MutexLock lock(&mutex_);
  const Entry* entry = FindTaken(now, sample_id, worker_id);
  if (entry == nullptr) return Gone();
  if (entry->blobs.count(blob) == 0) {
    return MakeError(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE",
                     "the sampling order does not need this blob; read only those that it names");
  }
  return absl::OkStatus();
}

absl::Status SampleBroker::Return(absl::Time now, const std::string& sample_id,
                                  const std::string& worker_id,
                                  const worker::v1::ReturnSampleRequest& message) {
  // Under the lock, so that pieces stay in order and none comes after the end; sinks only queue.
  absl::MutexLock lock(&mutex_);
  Entry* found = FindTaken(now, sample_id, worker_id);
  if (found == nullptr) return Gone();
  Entry& entry = *found;
  if (message.has_error()) {
    entry.sink->End(StatusOf(message.error()));
    entries_.erase(sample_id);
    return absl::OkStatus();
  }
  if (!message.has_response()) return absl::OkStatus();
  ++entry.pieces;
  entry.bytes += static_cast<int64_t>(message.response().text().size());
  if (entry.bytes > kMaxReplyBytes || entry.pieces > kMaxReplyPieces) {
    entry.sink->End(WorkerLost());
    entries_.erase(sample_id);
    return Gone();
  }
  entry.sink->Piece(message.response());
  if (!message.response().finish_reason().empty()) {
    entry.sink->End(absl::OkStatus());
    entries_.erase(sample_id);
  }
  return absl::OkStatus();
}

void SampleBroker::Ended(const std::string& sample_id, const std::string& worker_id) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(sample_id);
  if (it == entries_.end() || worker_id.empty() || it->second.worker_id != worker_id) return;
  it->second.sink->End(WorkerLost());
  entries_.erase(it);
}

bool SampleBroker::Sweep(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  bool waits_again = false;
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    if (entry.deadline > now) {
      ++it;
      continue;
    }
    const bool taken = !entry.worker_id.empty() || entry.elsewhere;
    if (taken && !entry.alive && !entry.requeued && !entry.adopted) {
      entry.worker_id.clear();
      entry.Withdraw();
      entry.requeued = true;
      entry.deadline = now + kTakeTimeout;
      waits_again = true;
      ++it;
      continue;
    }
    entry.sink->End(taken ? WorkerLost()
                          : WithRetry(MakeError(absl::StatusCode::kUnavailable, "NO_WORKER",
                                                "no worker took the request in time; ask again"),
                                      absl::Seconds(10)));
    it = entries_.erase(it);
  }
  return waits_again;
}

void SampleBroker::EndAll() {
  absl::MutexLock lock(&mutex_);
  for (auto& [id, entry] : entries_) {
    entry.sink->End(WithRetry(
        MakeError(absl::StatusCode::kUnavailable, "SERVER_STOPPING", "the server stops; ask again"),
        absl::Seconds(2)));
  }
  entries_.clear();
}

bool SampleBroker::Offer(absl::Time now, absl::Duration waited) {
  absl::MutexLock lock(&mutex_);
  bool any = false;
  for (auto& [id, entry] : entries_) {
    // As exact as a record's time.
    if (entry.waits() && entry.deadline - kTakeTimeout + waited <= now) {
      entry.offered = FromTimestamp(ToTimestamp(now));
    }
    any = any || entry.offered.has_value();
  }
  return any;
}

std::vector<SampleOffer> SampleBroker::OffersWithout(const std::set<std::string>& ids) {
  absl::MutexLock lock(&mutex_);
  std::vector<SampleOffer> offers;
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    const bool missing = entry.offered.has_value() && ids.count(it->first) == 0;
    if (missing && entry.elsewhere) {
      entry.sink->End(WorkerLost());
      it = entries_.erase(it);
      continue;
    }
    if (missing) offers.push_back({entry.order, *entry.offered});
    ++it;
  }
  return offers;
}

std::optional<worker::v1::SampleOrder> SampleBroker::TakeBack(absl::Time now,
                                                              const std::string& sample_id,
                                                              const std::string& worker_id) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(sample_id);
  if (it == entries_.end() || !it->second.offered.has_value() || it->second.elsewhere) {
    return std::nullopt;
  }
  Entry& entry = it->second;
  entry.Withdraw();
  entry.worker_id = worker_id;
  entry.alive = false;
  entry.deadline = now + kFirstSignTimeout;
  return entry.order;
}

bool SampleBroker::Follow(absl::Time now, const SampleRecord& record) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(record.order().sample_id());
  // One of an earlier offer of the order is of no use either.
  if (it == entries_.end() || it->second.offered != FromTimestamp(record.create_time())) {
    return false;
  }
  Entry& entry = it->second;
  if (record.taken_by().empty()) return true;
  if (record.sign() > entry.sign) {
    // The first was given by the server that has taken it, not by its worker.
    entry.alive = record.sign() > 1;
    entry.deadline = now + (entry.alive ? kPieceTimeout : kFirstSignTimeout);
    entry.sign = record.sign();
  }
  entry.elsewhere = true;
  for (; entry.pieces < record.pieces_size(); ++entry.pieces) {
    entry.sink->Piece(record.pieces(static_cast<int>(entry.pieces)));
  }
  if (!record.has_end()) return true;
  entry.sink->End(FromRpcStatus(record.end()));
  entries_.erase(it);
  return false;
}

void SampleBroker::Adopt(absl::Time now, worker::v1::SampleOrder order,
                         std::shared_ptr<SampleSink> sink, const std::string& worker_id) {
  absl::MutexLock lock(&mutex_);
  const std::string id = order.sample_id();
  const auto it = entries_.find(id);
  if (it != entries_.end()) it->second.sink->End(Gone());
  Entry entry = MakeEntry(std::move(order), std::move(sink));
  entry.adopted = true;
  entry.worker_id = worker_id;
  entry.deadline = now + kFirstSignTimeout + kAdoptedLonger;
  entries_[id] = std::move(entry);
}

void SampleBroker::Drop(const std::string& sample_id, const SampleSink& sink) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(sample_id);
  if (it == entries_.end() || it->second.sink.get() != &sink) return;
  it->second.sink->End(Gone());
  entries_.erase(it);
}

}  // namespace ballast::server
