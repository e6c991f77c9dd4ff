// SPDX-License-Identifier: Apache-2.0
#include "server/api/sample_broker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/utf8.h"

namespace ballast::server {
namespace {

// Bounds what a worker can make a slow customer's connection hold in memory.
constexpr int64_t kMaxReplyBytes = int64_t{1} << 20;
constexpr int64_t kMaxReplyPieces = 8192;

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

absl::Status SampleBroker::Submit(absl::Time now, worker::v1::SampleOrder order,
                                  std::shared_ptr<SampleSink> sink) {
  absl::MutexLock lock(&mutex_);
  const auto of_tenant = std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return entry.second.order.request().parent() == order.request().parent();
  });
  if (static_cast<size_t>(of_tenant) >= kMaxOpenOfTenant) {
    return WithRetry(
        MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_SAMPLES",
                  absl::StrCat("you wait for ", of_tenant,
                               " replies already, the most at a time; ask again after one of them"),
                  {{"limit", absl::StrCat(kMaxOpenOfTenant)}}),
        absl::Seconds(5));
  }
  if (entries_.size() >= kMaxOpen) {
    return WithRetry(MakeError(absl::StatusCode::kResourceExhausted, "SAMPLE_QUEUE_FULL",
                               "too many replies are being waited for; ask again later"),
                     absl::Seconds(10));
  }
  Entry entry;
  entry.number = next_number_++;
  entry.deadline = now + kTakeTimeout;
  entry.sink = std::move(sink);
  for (const auto& file : order.base_model().files()) entry.blobs.insert(file.blob());
  if (!order.adapter_blob().empty()) entry.blobs.insert(order.adapter_blob());
  const std::string id = order.sample_id();
  entry.order = std::move(order);
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
    if (entry.worker_id.empty() && fits) waiting.push_back(&entry);
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
                     [](const auto& entry) { return entry.second.worker_id.empty(); });
}

SampleBroker::Entry* SampleBroker::FindTaken(absl::Time now, const std::string& sample_id,
                                             const std::string& worker_id) {
  const auto it = entries_.find(sample_id);
  if (it == entries_.end() || worker_id.empty() || it->second.worker_id != worker_id) {
    return nullptr;
  }
  it->second.alive = true;
  it->second.deadline = now + kPieceTimeout;
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
    if (!entry.worker_id.empty() && !entry.alive && !entry.requeued) {
      entry.worker_id.clear();
      entry.requeued = true;
      entry.deadline = now + kTakeTimeout;
      waits_again = true;
      ++it;
      continue;
    }
    entry.sink->End(entry.worker_id.empty()
                        ? WithRetry(MakeError(absl::StatusCode::kUnavailable, "NO_WORKER",
                                              "no worker took the request in time; ask again"),
                                    absl::Seconds(10))
                        : WorkerLost());
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

}  // namespace ballast::server
