// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_SQLITE_TRANSACTION_H_
#define BALLAST_SERVER_STORE_SQLITE_TRANSACTION_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/core/job_store.h"
#include "server/store/sqlite_connection.h"

namespace ballast::server {

// The statements of a transaction that its owner has begun and will end. Thread safety: not
// thread-safe.
class SqliteTransaction : public Transaction {
 public:
  // `owner`: as JobStore::owner.
  SqliteTransaction(SqliteConnection& connection, const std::string& owner)
      : connection_(connection), owner_(owner) {}

  // Nothing is held: a database has one writer at a time.
  absl::StatusOr<std::optional<Row>> Get(Kind kind, std::string_view scope, std::string_view id,
                                         Hold hold) override;
  absl::StatusOr<int64_t> Insert(Kind kind, const Row& row) override;
  absl::Status Replace(Kind kind, const Row& row) override;
  absl::Status Delete(Kind kind, std::string_view scope, std::string_view id) override;
  absl::StatusOr<std::vector<Row>> ListByScope(Kind kind, std::string_view scope,
                                               int64_t before_sequence, int limit) override;
  absl::StatusOr<std::vector<Row>> ListByState(Kind kind, int state, const StateCursor& after,
                                               int limit) override;
  absl::StatusOr<std::optional<int64_t>> ShiftQueue(Kind kind, std::string_view scope, int state,
                                                    int64_t from, int64_t by) override;
  absl::StatusOr<int64_t> CountBefore(Kind kind, int state, const Row& row) override;
  absl::StatusOr<int64_t> CountOfScope(Kind kind, std::string_view scope,
                                       const std::vector<int>& states) override;
  absl::StatusOr<std::optional<int64_t>> LastQueueKey(Kind kind, int state) override;
  absl::StatusOr<int64_t> CountState(Kind kind, int state) override;
  absl::Status AppendEvent(std::string_view scope, std::string_view job,
                           const EventRow& event) override;
  absl::StatusOr<std::vector<EventRow>> ListEvents(std::string_view scope, std::string_view job,
                                                   int64_t after_sequence, int limit) override;
  absl::StatusOr<std::optional<RequestRow>> GetRequest(std::string_view scope,
                                                       std::string_view request_id) override;
  absl::Status PutRequest(std::string_view scope, std::string_view request_id,
                          const RequestRow& request) override;
  using Transaction::AddGarbage;
  absl::Status AddGarbage(std::string_view blob_prefix, std::string_view holder) override;
  absl::StatusOr<std::vector<GarbageRow>> ListGarbage(std::string_view after, int limit) override;
  absl::StatusOr<std::optional<GarbageRow>> GetGarbage(std::string_view blob_prefix) override;
  absl::Status RemoveGarbage(std::string_view blob_prefix) override;
  const std::string& owner() const override { return owner_; }

 private:
  absl::StatusOr<int64_t> NextSequence(Kind kind, std::string_view scope);

  SqliteConnection& connection_;
  const std::string& owner_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_SQLITE_TRANSACTION_H_
