// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SAMPLE_BROKER_H_
#define BALLAST_SERVER_API_SAMPLE_BROKER_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// Who waits for a reply. Called with the broker's lock held: one call at a time, which must not
// block or call the broker. None comes after End.
class SampleSink {
 public:
  virtual ~SampleSink() = default;
  // The worker has given a sign of life; every piece is one, too.
  virtual void Sign() {}
  virtual void Piece(const v1::SampleResponse& response) = 0;
  virtual void End(const absl::Status& status) = 0;
};

// An order that the workers of other servers may take, and since when.
struct SampleOffer {
  worker::v1::SampleOrder order;
  absl::Time time;
};

// Brings sampling orders to workers and their replies back. Orders live in memory: a restart ends
// them, and who waits is told by the broken connection. Where several servers share a store,
// SampleRelay offers what nobody here takes to the others, and brings theirs. Thread safety:
// thread-safe.
class SampleBroker {
 public:
  // Time until a worker must have taken an order, until its first sign of life, and between signs
  // of life afterwards. The second is longer than most training steps: a busy worker turns to an
  // order after one.
  static constexpr absl::Duration kTakeTimeout = absl::Seconds(20);
  static constexpr absl::Duration kFirstSignTimeout = absl::Seconds(30);
  static constexpr absl::Duration kPieceTimeout = absl::Minutes(2);
  // Orders that may be open, waiting or being answered: of all tenants, and of one. More are
  // refused. Other servers' orders do not count: these have counted them.
  static constexpr size_t kMaxOpen = 100;
  static constexpr size_t kMaxOpenOfTenant = 8;

  // Queues an order of the tenant that its request's parent names. `sink` is kept until its End.
  // RESOURCE_EXHAUSTED (SAMPLE_QUEUE_FULL, TOO_MANY_SAMPLES).
  absl::Status Submit(absl::Time now, worker::v1::SampleOrder order,
                      std::shared_ptr<SampleSink> sink);

  // Nobody waits for the reply any more: the sink, if it is still known, gets its End (CANCELLED).
  // When this returns no call of the sink is under way and none will come.
  void Cancel(const std::string& sample_id);

  // Orders for a worker to do now, the oldest first; they are its own from then on. A worker that
  // holds a base model, and cannot load another, gets orders for `base_digest` only; empty: any.
  std::vector<worker::v1::SampleOrder> Take(absl::Time now, const std::string& worker_id,
                                            size_t most, const std::string& base_digest = "");
  // Whether there is something to take. What is offered is not.
  bool HasWaiting() const;

  // OK when the worker has the order and the order names the blob. FAILED_PRECONDITION
  // (SAMPLE_GONE), PERMISSION_DENIED (BLOB_NOT_IN_LEASE).
  absl::Status CheckReadable(absl::Time now, const std::string& sample_id,
                             const std::string& worker_id, const std::string& blob);

  // A message of a reply. CANCELLED (SAMPLE_GONE) when nobody waits or the order is not this
  // worker's.
  absl::Status Return(absl::Time now, const std::string& sample_id, const std::string& worker_id,
                      const worker::v1::ReturnSampleRequest& message);
  // The worker's stream has ended; without a last message the reply is broken off.
  void Ended(const std::string& sample_id, const std::string& worker_id);

  // Ends orders that nobody took or nobody works on: UNAVAILABLE (NO_WORKER, WORKER_LOST). One
  // whose worker has given no sign of life, perhaps because the answer with the order was lost,
  // waits once more: true when there are such, for idle workers to be told.
  bool Sweep(absl::Time now);
  // Ends all: UNAVAILABLE (SERVER_STOPPING).
  void EndAll();

  // What follows is for SampleRelay. Time-outs of an order are the same wherever its worker is.

  // Offers the orders that nobody has taken for `waited`: from now on they are for TakeBack and
  // Follow. True while there is any that is offered.
  bool Offer(absl::Time now, absl::Duration waited);
  // Offers besides those of `ids`. Whose worker at another server is lost with its record is ended
  // (WORKER_LOST).
  std::vector<SampleOffer> OffersWithout(const std::set<std::string>& ids);
  // Takes an offer for a worker of this server, unless it is no longer one.
  std::optional<worker::v1::SampleOrder> TakeBack(absl::Time now, const std::string& sample_id,
                                                  const std::string& worker_id);
  // Passes on what has come into an offer's record since the last time. False when the record is of
  // no use any more: its reply has ended or nobody waits.
  bool Follow(absl::Time now, const SampleRecord& record);

  // Keeps an order of another server that one of this server's workers has taken, in place of what
  // the same order left behind. It waits for no second worker: its own server sees to that.
  void Adopt(absl::Time now, worker::v1::SampleOrder order, std::shared_ptr<SampleSink> sink,
             const std::string& worker_id);
  // As Cancel, if the order's sink is this one.
  void Drop(const std::string& sample_id, const SampleSink& sink);

 private:
  struct Entry {
    worker::v1::SampleOrder order;
    std::shared_ptr<SampleSink> sink;
    std::set<std::string> blobs;
    std::string worker_id;  // of this server; empty while there is none
    bool alive = false;     // its worker has given a sign of life
    bool requeued = false;
    int64_t number = 0;  // order of arrival
    absl::Time deadline;
    int64_t bytes = 0;
    int64_t pieces = 0;
    bool adopted = false;               // it is another server's
    std::optional<absl::Time> offered;  // since when it is
    bool elsewhere = false;             // a worker of another server has it
    int64_t sign = 0;                   // the newest of that server

    bool waits() const { return worker_id.empty() && !offered.has_value(); }
    void Withdraw() {
      offered.reset();
      elsewhere = false;
      sign = 0;
    }
  };

  static Entry MakeEntry(worker::v1::SampleOrder order, std::shared_ptr<SampleSink> sink);
  // The order if the worker has it, or null; a sign of life.
  Entry* FindTaken(absl::Time now, const std::string& sample_id, const std::string& worker_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t next_number_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SAMPLE_BROKER_H_
