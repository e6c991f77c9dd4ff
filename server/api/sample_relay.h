// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SAMPLE_RELAY_H_
#define BALLAST_SERVER_API_SAMPLE_RELAY_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/base/clock.h"
#include "server/api/background_loop.h"
#include "server/api/sample_broker.h"
#include "server/core/bulletin.h"
#include "server/core/job_store.h"

namespace ballast::server {

// Brings sampling orders to workers of other servers that share the store, and theirs to workers of
// this one. An order that nobody here takes is offered: a record of it is put into the store. The
// server whose worker takes it writes the reply into the record, and this one reads it there until
// it has ended, and deletes the record. Who waits, and for how long, only this server's broker
// says: a record that is gone tells the other one to drop the order. Prompts are in the store while
// an order waits, replies until they were read. Where the store is not shared, the object does
// nothing. Thread safety: thread-safe.
//
// Failures of the store are logged, and what failed is tried again.
class SampleRelay {
 public:
  // How long an order is left to the workers here, at least.
  static constexpr absl::Duration kOfferAfter = absl::Milliseconds(200);
  // Between signs of life of a worker in a record.
  static constexpr absl::Duration kSignPeriod = absl::Seconds(5);
  // How often idle workers look for offers of which they were told nothing.
  static constexpr absl::Duration kLookPeriod = absl::Seconds(2);
  // A record that this server has seen for so long is of no call that still lasts. By its own
  // clock: those of different machines need not agree.
  static constexpr absl::Duration kMaxAge = absl::Minutes(15);

  // All must outlive the object; `bulletin` may be null.
  SampleRelay(JobStore& store, SampleBroker& broker, Clock& clock, Bulletin* bulletin);
  ~SampleRelay();

  // From now on records are written and read on a thread of the object's own.
  void Start();
  // For the server's tick, on one thread: lets that thread run if there is something to do. True
  // when idle workers should look for offers; `idle`: whether there are such.
  bool Enter(absl::Time now, bool idle);
  // Others may have made offers.
  void Heard() { heard_.fetch_add(1); }

  // Whether it is worth to call TakeOffers. Never waits.
  bool MayHaveOffers() const;
  // As SampleBroker::Take, of the offers of all servers: what is returned is this worker's, and no
  // other server has it. Failures of the store.
  absl::StatusOr<std::vector<worker::v1::SampleOrder>> TakeOffers(absl::Time now,
                                                                  const std::string& worker_id,
                                                                  size_t most,
                                                                  const std::string& base_digest);

  // Offers and takes nothing from now on.
  void Drain() { draining_ = true; }
  // Ends all orders of the broker (SERVER_STOPPING), and writes and deletes what that asks for,
  // once. Called after the last call of a worker has ended. Idempotent.
  void Stop();

  // Does at once what its thread does.
  void RunOnceForTest() { RunOnce(); }

 private:
  class Reply;

  void RunOnce();
  // Writes what workers here have said of others' orders.
  absl::Status WriteReplies(absl::Time now);
  // Reads the records of this server's own orders, and adds and deletes such.
  absl::Status TendOffers(absl::Time now);
  absl::Status DeleteLeftovers(absl::Time now);
  // Logs the first of a row of failures.
  void Report(const absl::Status& status);
  void Forget(const std::shared_ptr<Reply>& reply);
  bool HasReplies(absl::Time now);

  JobStore& store_;
  SampleBroker& broker_;
  Clock& clock_;
  Bulletin* const bulletin_;
  // There may be offers unless a look that began at this number of tidings has found none.
  std::atomic<int64_t> heard_ = 1;
  std::atomic<int64_t> seen_ = 0;
  std::atomic<bool> draining_ = false;
  // There may be records of this server's own orders.
  std::atomic<bool> own_records_ = false;
  std::atomic<bool> offered_ = false;             // since Enter was last there
  absl::Time next_look_ = absl::InfinitePast();   // for Enter
  absl::Time next_clean_ = absl::InfinitePast();  // for RunOnce
  // Records of all servers, by server and sample_id, and since when they are seen. For RunOnce.
  std::map<std::pair<std::string, std::string>, absl::Time> known_;
  bool failing_ = false;  // for RunOnce
  bool stopped_ = false;
  absl::Mutex mutex_;
  // Of others' orders, by sample_id.
  std::map<std::string, std::shared_ptr<Reply>> replies_ ABSL_GUARDED_BY(mutex_);
  // Own offers that are perhaps being taken back: their records may be gone already.
  std::multiset<std::string> taking_back_ ABSL_GUARDED_BY(mutex_);
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SAMPLE_RELAY_H_
