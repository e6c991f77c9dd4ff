// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_
#define BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "server/core/job_store.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// The statements of a transaction that its owner has begun and will end. Thread safety: not
// thread-safe.
class PostgresTransaction : public Transaction {
 public:
  // `writes`: false for one that only reads.
  PostgresTransaction(PostgresConnection& connection, bool writes)
      : connection_(connection), writes_(writes) {}

  absl::Status Prefetch(const std::vector<RowKey>& keys) override;
  absl::StatusOr<std::optional<Row>> Get(Kind kind, std::string_view scope, std::string_view id,
                                         Hold hold) override;
  absl::StatusOr<int64_t> Insert(Kind kind, const Row& row) override;
  absl::Status Replace(Kind kind, const Row& row) override;
  absl::Status Delete(Kind kind, std::string_view scope, std::string_view id) override;
  absl::StatusOr<std::vector<Row>> ListByScope(Kind kind, std::string_view scope,
                                               int64_t before_sequence, int limit) override;
  absl::StatusOr<std::vector<Row>> ListByState(Kind kind, int state, const StateCursor& after,
                                               int limit) override;
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
  absl::Status AddGarbage(std::string_view blob_prefix) override;
  absl::StatusOr<std::vector<std::string>> ListGarbage(int limit) override;
  absl::Status RemoveGarbage(std::string_view blob_prefix) override;

 private:
  using Key = std::tuple<Kind, std::string, std::string>;  // with scope and id
  struct Known {
    Hold hold;
    std::optional<Row> row;
  };

  const char* GetStatement(Kind kind, Hold hold) const;
  // The row is about to come or go.
  void Forget(Kind kind, std::string_view scope, std::string_view id) {
    known_.erase({kind, std::string(scope), std::string(id)});
  }

  PostgresConnection& connection_;
  const bool writes_;
  std::map<Key, Known> known_;  // rows that were prefetched or are held, as they are now
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_
