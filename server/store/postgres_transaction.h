// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_
#define BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "server/core/job_store.h"
#include "server/store/postgres_connection.h"

namespace ballast::server {

// The statements of a transaction. They are sent as late as possible, many in one round trip: that
// it begins, with the first one whose rows are waited for; what writes, and cannot fail but by a
// fault of the caller's, with the next one, or with the commit. Thread safety: not thread-safe.
class PostgresTransaction : public Transaction {
 public:
  // One that only reads. `owner`: as JobStore::owner. All must outlive the object.
  PostgresTransaction(PostgresConnection& connection, const std::string& owner);
  // One that may write. `stamp` is run before its first write.
  PostgresTransaction(PostgresConnection& connection, const std::string& owner,
                      PostgresStatement stamp);

  // Commits, unless nothing was asked or written. As PostgresConnection::Commit.
  absl::Status Commit();
  // Whether PostgreSQL has answered anything.
  bool has_begun() const { return begun_; }

  absl::Status Prefetch(const std::vector<RowKey>& keys) override;
  absl::StatusOr<std::optional<Row>> Get(Kind kind, std::string_view scope, std::string_view id,
                                         Hold hold) override;
  absl::StatusOr<int64_t> Insert(Kind kind, const Row& row) override;
  absl::Status Add(Kind kind, const Row& row) override;
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
  using Key = std::tuple<Kind, std::string, std::string>;  // with scope and id
  struct Known {
    Hold hold;
    std::optional<Row> row;
  };

  const char* GetStatement(Kind kind, Hold hold) const;
  absl::Status PrefetchAll(const std::vector<const RowKey*>& keys);
  // Runs what was put off, and then `statements`, whose rows it gives.
  absl::StatusOr<std::vector<PostgresRows>> RunAll(std::vector<PostgresStatement> statements);
  absl::StatusOr<PostgresRows> Run(const char* sql, std::vector<PostgresValue> values);
  // The same with one that writes.
  absl::StatusOr<PostgresRows> Write(const char* sql, std::vector<PostgresValue> values);
  // Puts one that writes off. Copies what it views. INTERNAL (STORE_READ_ONLY).
  absl::Status WriteLater(const char* sql, const std::vector<PostgresValue>& values);
  void Stamp();
  // The row is about to come or go.
  void Forget(Kind kind, std::string_view scope, std::string_view id) {
    known_.erase({kind, std::string(scope), std::string(id)});
  }

  PostgresConnection& connection_;
  const bool writes_;
  const std::string& owner_;
  std::optional<PostgresStatement> stamp_;  // until it was run or put off
  std::vector<PostgresStatement> later_;    // what was put off
  std::deque<std::string> texts_;           // that it views
  bool begun_ = false;
  std::map<Key, Known> known_;  // rows that were prefetched or are held, as they are now
  std::set<Key> skipped_;       // rows that were prefetched and that others hold
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_POSTGRES_TRANSACTION_H_
