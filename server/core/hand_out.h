// SPDX-License-Identifier: Apache-2.0
// What goes next to workers. Functions over a transaction.
#ifndef BALLAST_SERVER_CORE_HAND_OUT_H_
#define BALLAST_SERVER_CORE_HAND_OUT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// Where the queue of jobs is looked at first. Of a job that was taken PostgreSQL keeps entries in
// the queue until it can clean up, which another's long transaction may prevent; they lie before
// those that wait, and would all be read again for each. So the next one is looked for where the
// last one was, and from the beginning now and then, and where nothing is found: for jobs that were
// passed over, have come back, or were created beside a claim.
class QueueFront {
 public:
  // Whether to begin behind the last job that was taken; from the beginning where nothing is found.
  bool IsKnown(absl::Time now) const {
    return now >= looked_over_ && now - looked_over_ < absl::Seconds(1);
  }
  const StateCursor& last_taken() const { return last_taken_; }
  void Taken(const Row& row, bool from_the_beginning, absl::Time now) {
    if (from_the_beginning) looked_over_ = now;
    last_taken_ = {row.queue_key, row.scope, row.id};
  }

 private:
  StateCursor last_taken_;
  absl::Time looked_over_ = absl::InfinitePast();  // from the beginning
};

// Whether work was tried a moment ago and failed by the platform's fault, so that nobody gets it
// yet.
bool RestsAfterError(const LeaseRecord& lease, absl::Time now);

// Why a job cannot run on its base model at present, for its owner; empty when it can.
absl::StatusOr<std::string> WhyTheBaseKeeps(Transaction& tx, const JobRecord& record,
                                            const ServingVectors& serving);

// Gives each of these workers the next thing, under a new epoch, as long as there are such: vectors
// first, oldest first, then jobs by fair share. A job whose tenant has as many running as it may is
// passed over. A job whose tenant is frozen, whose base has no vector that serves, or that lies
// outside the envelope of the one that serves by now, is passed over, stays QUEUED, and says so
// once in an event; so does one that failed a moment ago, without a word. What the first workers
// get; nothing for the rest. `changed_jobs` gets the names of jobs with new events.
absl::StatusOr<std::vector<worker::v1::Work>> TakeNext(Transaction& tx,
                                                       const std::vector<std::string>& worker_ids,
                                                       absl::Time now, IdSource& ids,
                                                       const ServingVectors& serving,
                                                       const Quotas& quotas, QueueFront& front,
                                                       std::vector<std::string>& changed_jobs);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_HAND_OUT_H_
