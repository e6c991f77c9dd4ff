// SPDX-License-Identifier: Apache-2.0
// Signs of life of workers where several servers share a store: each server writes those of the
// workers that talk to it, and all read them, to show workers and progress, and to end leases. A
// lease whose worker gives no sign ends after its term by the clock of any server that has watched
// it for so long: clocks need not agree, and no server is needed. Functions over a transaction.
#ifndef BALLAST_SERVER_CORE_WORKER_SIGN_H_
#define BALLAST_SERVER_CORE_WORKER_SIGN_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/admin_service.pb.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/lease_table.h"

namespace ballast::server {

// Writes the next sign of the worker that `info` is about, which works under `lease`, known as
// `live` (null: on nothing). Its number.
absl::StatusOr<int64_t> WriteSign(Transaction& tx, const admin::v1::WorkerInfo& info,
                                  const worker::v1::Lease* lease, const LiveLease* live);

// The number of the newest sign that the worker has given under `lease`; 0 for none.
absl::StatusOr<int64_t> SignUnder(Transaction& tx, const std::string& worker_id,
                                  const worker::v1::Lease& lease);

// The lease as the store knows it, without the time of its end; empty when the worker does not hold
// it. Its worker has given a sign, or gives it by asking.
absl::StatusOr<std::optional<LiveLease>> FindLease(Transaction& tx, const worker::v1::Lease& lease,
                                                   const std::string& worker_id);

struct GivenLease {
  worker::v1::Lease wire;
  LiveLease live;
};
// The lease under which the worker has last given a sign, if it still holds it.
absl::StatusOr<std::optional<GivenLease>> FindLastLease(Transaction& tx,
                                                        const std::string& worker_id);

using WorkersById = std::map<std::string, admin::v1::WorkerInfo>;
// The last sign of each worker, and since when that is it, by this server's clock.
struct SignSeen {
  int64_t sign = 0;
  absl::Time since;
};
using SignsSeen = std::map<std::string, SignSeen>;

// Brings `leases` up to what the store has: those that it has not are erased, those that are new
// here get a full `term`, and those with another sign than before one more; all do where the store
// was not `watched` for a while. `workers` get those that others have seen later than this server,
// `moved` the names of what others' workers have told of since.
absl::Status TakeOverLeases(Transaction& tx, absl::Time now, absl::Duration term, bool watched,
                            LeaseTable& leases, WorkersById& workers, SignsSeen& seen,
                            std::vector<std::string>& moved);

// Deletes the records of workers whose last sign was seen before `before`.
absl::Status ForgetWorkers(Transaction& tx, const SignsSeen& seen, absl::Time before);

// A hint that signs of the first `count` workers will be written, or with kNone read.
absl::Status PrefetchSigns(Transaction& tx, const std::vector<std::string>& worker_ids,
                           size_t count, Hold hold = Hold::kExclusive);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_WORKER_SIGN_H_
