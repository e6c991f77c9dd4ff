// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_LEASE_TABLE_H_
#define BALLAST_SERVER_CORE_LEASE_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "ballast/worker/v1/worker_service.pb.h"

namespace ballast::server {

// A lease that is held now.
struct LiveLease {
  int64_t epoch = 0;
  std::string worker_id;
  absl::Time expires;
  bool heard = false;  // a heartbeat has come since
  // Speed and the time left are measured from here, once `measured`: the start of work that begins
  // at step 0, or else the first report of a training that began elsewhere.
  bool measured = false;
  absl::Time measured_from;
  int64_t measured_step = 0;
  int64_t measured_tokens = 0;
  // How fast steps go tells how the rows are split (VECTOR_POLICY_BY_ROW), so that `progress` moves
  // with evaluations only (S2).
  bool coarse = false;
  int evaluations_at_first = -1;  // in the first heartbeat; -1 before it
  int evaluations = 0;            // in the heartbeat that last moved a coarse `progress`
  bool shown = false;             // whether `progress` has anything to show
  v1::JobProgress progress;       // step, total_steps, trained_tokens, time_left; as tenants see it
  // Where servers share a store (worker_sign.h): the newest sign of its worker that is known, and
  // when this server is to write the next one.
  int64_t sign = 0;
  absl::Time next_sign = absl::InfinitePast();

  // Takes a heartbeat over.
  void Hear(const worker::v1::SynchronizeRequest::Busy& busy, absl::Time now);
};

// The leases that are held, by resource. Looking for those of a worker, or for those that are due,
// costs nothing where there are none. Thread safety: not thread-safe.
class LeaseTable {
 public:
  void Put(const std::string& resource, const LiveLease& lease) {
    Erase(resource);
    of_worker_[lease.worker_id].insert(resource);
    earliest_ = std::min(earliest_, lease.expires);
    leases_[resource] = lease;
  }
  void Erase(const std::string& resource) {
    const auto it = leases_.find(resource);
    if (it == leases_.end()) return;
    const auto of_worker = of_worker_.find(it->second.worker_id);
    of_worker->second.erase(resource);
    if (of_worker->second.empty()) of_worker_.erase(of_worker);
    leases_.erase(it);
  }
  // Erases all others.
  void KeepOnly(const std::set<std::string>& resources) {
    std::vector<std::string> others;
    for (const auto& [resource, lease] : leases_) {
      if (resources.count(resource) == 0) others.push_back(resource);
    }
    for (const std::string& resource : others) Erase(resource);
  }

  // The lease if `worker_id` holds exactly it, or null. Valid until the table changes. Of what
  // the table goes by only `expires` may change, and only to later.
  LiveLease* Find(const worker::v1::Lease& lease, const std::string& worker_id) {
    const auto it = leases_.find(lease.resource());
    if (it == leases_.end() || it->second.epoch != lease.epoch() ||
        it->second.worker_id != worker_id) {
      return nullptr;
    }
    return &it->second;
  }

  const LiveLease* FindResource(const std::string& resource) const {
    const auto it = leases_.find(resource);
    return it == leases_.end() ? nullptr : &it->second;
  }

  // Resources that `worker_id` holds.
  std::vector<std::string> HeldBy(const std::string& worker_id) const {
    const auto it = of_worker_.find(worker_id);
    if (it == of_worker_.end()) return {};
    return {it->second.begin(), it->second.end()};
  }

  // Resources whose lease ended at or before `now`.
  std::vector<std::string> Due(absl::Time now) {
    std::vector<std::string> resources;
    if (now < earliest_) return resources;
    earliest_ = absl::InfiniteFuture();
    for (const auto& [resource, lease] : leases_) {
      earliest_ = std::min(earliest_, lease.expires);
      if (lease.expires <= now) resources.push_back(resource);
    }
    return resources;
  }

 private:
  std::map<std::string, LiveLease> leases_;
  std::map<std::string, std::set<std::string>> of_worker_;  // resources
  absl::Time earliest_ = absl::InfiniteFuture();            // no lease ends before it
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_LEASE_TABLE_H_
