// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_JOB_STORE_H_
#define BALLAST_SERVER_CORE_JOB_STORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::server {

// What is kept, one table each. server/core/records.h has the typed view.
enum class Kind { kBaseModel, kDataset, kJob, kVector, kTenant, kUsage, kWorker, kServer, kSample };
inline constexpr Kind kAllKinds[] = {Kind::kBaseModel, Kind::kDataset, Kind::kJob,
                                     Kind::kVector,    Kind::kTenant,  Kind::kUsage,
                                     Kind::kWorker,    Kind::kServer,  Kind::kSample};

// One record as the store sees it: keys to find it by, and bytes.
struct Row {
  std::string scope;      // tenant id; empty for what belongs to the service
  std::string id;         // unique within its kind and scope
  int64_t sequence = 0;   // rises within kind and scope, never given twice; given by Insert
  int state = 0;          // state of the resource, to find it by
  int64_t queue_key = 0;  // order among rows of one state: smaller first, then by scope and id
  std::string bytes;
};

// Where the next page of ListByState begins: after this row. Default: at the first.
struct StateCursor {
  int64_t queue_key = INT64_MIN;
  std::string scope;
  std::string id;
};

// What a read keeps other transactions from doing to the row until this one ends.
enum class Hold {
  kNone,
  kShared,     // changing or deleting it
  kExclusive,  // that, and holding it themselves
  // The same, and a row that another transaction holds is taken for none, so that nobody waits.
  kExclusiveOrNone,
};

// Names a row, and how it will be held.
struct RowKey {
  Kind kind;
  std::string scope;
  std::string id;
  Hold hold = Hold::kNone;
};

struct EventRow {
  int64_t sequence = 0;
  std::string bytes;
};

// A prefix of blobs to be deleted. `holder`: the server (Transaction::owner) that keeps the others
// from it while it writes or deletes them; empty for none.
struct GarbageRow {
  std::string blob_prefix;
  std::string holder;
};

// What an earlier request with the same request_id was and made.
struct RequestRow {
  std::string payload_digest;
  std::string result_name;
};

// All reads and writes of one transaction; reads see its own writes, and what others had committed
// when they were made. Valid only inside JobStore's body. A missing record is an empty optional or
// OK, never NOT_FOUND. Failures are those of JobStore.
//
// Transactions run beside each other. What is read to be changed, or to decide a change by, is read
// with a hold; rows of different kinds are held in the order base model, vector, data set, job,
// tenant where that is possible, so that transactions seldom wait for each other in a circle, which
// the store breaks. A row that was listed may be another by the time it is held, and is looked at
// again. What two transactions list beside each other they may both find unchanged: where that
// decides, they must want the same row.
class Transaction {
 public:
  virtual ~Transaction() = default;

  // A hint that these rows will be got: a store that is far away asks for all of them at once, and
  // holds them in their order. Get then gives what was found now, unless this transaction changes
  // it.
  virtual absl::Status Prefetch(const std::vector<RowKey>& keys) { return absl::OkStatus(); }
  // In a transaction that only reads nothing is held.
  virtual absl::StatusOr<std::optional<Row>> Get(Kind kind, std::string_view scope,
                                                 std::string_view id, Hold hold) = 0;
  // Adds a row, giving it the next sequence of its scope, which is returned. ALREADY_EXISTS
  // (RECORD_EXISTS).
  virtual absl::StatusOr<int64_t> Insert(Kind kind, const Row& row) = 0;
  // The same without the sequence. A failure may be told by a later call, or by Update.
  virtual absl::Status Add(Kind kind, const Row& row) { return Insert(kind, row).status(); }
  // Replaces state, queue_key and bytes of a row that is held exclusively or was inserted in this
  // transaction. NOT_FOUND (RECORD_NOT_FOUND).
  virtual absl::Status Replace(Kind kind, const Row& row) = 0;
  // Deletes such a row, and for jobs their events.
  virtual absl::Status Delete(Kind kind, std::string_view scope, std::string_view id) = 0;

  // Rows of a scope whose sequence is below `before_sequence` (0: all), newest first.
  virtual absl::StatusOr<std::vector<Row>> ListByScope(Kind kind, std::string_view scope,
                                                       int64_t before_sequence, int limit) = 0;
  // Rows of all scopes in `state`, by queue key.
  virtual absl::StatusOr<std::vector<Row>> ListByState(Kind kind, int state,
                                                       const StateCursor& after, int limit) = 0;
  // Adds `by` to the queue keys of the rows of `scope` in `state` whose key is at least `from`, but
  // for those that another transaction holds. The smallest of their keys before; empty where there
  // are none.
  virtual absl::StatusOr<std::optional<int64_t>> ShiftQueue(Kind kind, std::string_view scope,
                                                            int state, int64_t from,
                                                            int64_t by) = 0;
  // Number of rows of `scope` in `state` that come before `row` in the order of ListByState.
  virtual absl::StatusOr<int64_t> CountBefore(Kind kind, int state, const Row& row) = 0;
  // Number of rows of `scope` in one of `states`, which are different, at least one and at most
  // kMostStates.
  static constexpr size_t kMostStates = 4;
  virtual absl::StatusOr<int64_t> CountOfScope(Kind kind, std::string_view scope,
                                               const std::vector<int>& states) = 0;
  // The largest queue key of rows in `state`; empty where there are none.
  virtual absl::StatusOr<std::optional<int64_t>> LastQueueKey(Kind kind, int state) = 0;
  // Number of rows of all scopes in `state`.
  virtual absl::StatusOr<int64_t> CountState(Kind kind, int state) = 0;

  // Events of a job. ALREADY_EXISTS (RECORD_EXISTS) when the sequence is taken, NOT_FOUND
  // (RECORD_NOT_FOUND) without the job; told as those of Add.
  virtual absl::Status AppendEvent(std::string_view scope, std::string_view job,
                                   const EventRow& event) = 0;
  virtual absl::StatusOr<std::vector<EventRow>> ListEvents(std::string_view scope,
                                                           std::string_view job,
                                                           int64_t after_sequence, int limit) = 0;

  // Requests by tenant and request_id. Put: ALREADY_EXISTS (RECORD_EXISTS), told as those of Add.
  virtual absl::StatusOr<std::optional<RequestRow>> GetRequest(std::string_view scope,
                                                               std::string_view request_id) = 0;
  virtual absl::Status PutRequest(std::string_view scope, std::string_view request_id,
                                  const RequestRow& request) = 0;

  // Prefixes of blobs that no record names any more, or none yet, to be deleted after the commit.
  // Adding one twice is harmless: `holder` is put over the one before, unless it is empty. Of core
  // only blob_hold.h gives or asks for one.
  virtual absl::Status AddGarbage(std::string_view blob_prefix, std::string_view holder) = 0;
  absl::Status AddGarbage(std::string_view blob_prefix) { return AddGarbage(blob_prefix, ""); }
  // By prefix, from the one after `after`.
  virtual absl::StatusOr<std::vector<GarbageRow>> ListGarbage(std::string_view after,
                                                              int limit) = 0;
  // The row, held exclusively; empty where there is none.
  virtual absl::StatusOr<std::optional<GarbageRow>> GetGarbage(std::string_view blob_prefix) = 0;
  virtual absl::Status RemoveGarbage(std::string_view blob_prefix) = 0;

  // As JobStore::owner.
  virtual const std::string& owner() const = 0;
};

// Durable records with transactions: what the API has acknowledged is here (R3).
// Thread safety: thread-safe.
// Failures: RESOURCE_EXHAUSTED (DISK_FULL), UNAVAILABLE (STORE_IO, STORE_BUSY; COMMIT_UNKNOWN where
// an update may have been made), DATA_LOSS (STORE_CORRUPT).
class JobStore {
 public:
  using Body = std::function<absl::Status(Transaction&)>;
  virtual ~JobStore() = default;

  // Runs `body` in a write transaction. Commits durably when it returns OK; otherwise nothing
  // changes and its status is returned. A transaction that others have stopped is run again, so
  // `body` leaves nothing behind but what its last run has set. It must not call the store
  // otherwise.
  virtual absl::Status Update(const Body& body) = 0;

  // Runs `body` once, on one consistent state; writing in it fails (INTERNAL, STORE_READ_ONLY).
  virtual absl::Status Read(const Body& body) = 0;

  // Whether other servers may use the same records. What these must know of this server's workers
  // and calls is then to be kept here, too.
  virtual bool shared() const { return false; }
  // Id of the server that uses this object: its own where `shared`, else always the same.
  virtual const std::string& owner() const = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_JOB_STORE_H_
