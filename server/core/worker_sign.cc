// SPDX-License-Identifier: Apache-2.0
#include "server/core/worker_sign.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "server/core/job_state.h"
#include "server/core/leased_job.h"
#include "server/core/leased_vector.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

using admin::v1::WorkerInfo;
using SignsById = std::map<std::string, WorkerRecord>;

absl::StatusOr<SignsById> AllSigns(Transaction& tx) {
  SignsById signs;
  BALLAST_RETURN_IF_ERROR(
      ForEachInState<WorkerRecord>(tx, 0, [&](WorkerRecord record) -> absl::StatusOr<bool> {
        const std::string id = record.id();
        signs[id] = std::move(record);
        return true;
      }));
  return signs;
}

bool IsUnder(const WorkerRecord& sign, const std::string& resource, int64_t epoch) {
  return sign.resource() == resource && sign.epoch() == epoch;
}

void TakeSign(const WorkerRecord& sign, LiveLease& lease) {
  lease.sign = sign.sign();
  lease.heard = lease.heard || sign.heard();
  if (!sign.has_progress()) return;
  lease.shown = true;
  lease.progress = sign.progress();
}

}  // namespace

absl::StatusOr<int64_t> WriteSign(Transaction& tx, const WorkerInfo& info,
                                  const worker::v1::Lease* lease, const LiveLease* live) {
  const std::string id(absl::StripPrefix(info.name(), "workers/"));
  BALLAST_ASSIGN_OR_RETURN(const auto before,
                           GetRecord<WorkerRecord>(tx, "", id, Hold::kExclusive));
  WorkerRecord record;
  record.set_id(id);
  *record.mutable_info() = info;
  record.set_sign(before.has_value() ? before->sign() + 1 : 1);
  if (lease != nullptr) {
    record.set_resource(lease->resource());
    record.set_epoch(lease->epoch());
  }
  if (live != nullptr) {
    record.set_heard(live->heard);
    if (live->shown) *record.mutable_progress() = live->progress;
  }
  BALLAST_RETURN_IF_ERROR(before.has_value() ? ReplaceRecord(tx, record)
                                             : InsertRecord(tx, record));
  return record.sign();
}

absl::StatusOr<int64_t> SignUnder(Transaction& tx, const std::string& worker_id,
                                  const worker::v1::Lease& lease) {
  BALLAST_ASSIGN_OR_RETURN(const auto sign, GetRecord<WorkerRecord>(tx, "", worker_id));
  const bool under = sign.has_value() && IsUnder(*sign, lease.resource(), lease.epoch());
  return under ? sign->sign() : 0;
}

absl::StatusOr<std::optional<LiveLease>> FindLease(Transaction& tx, const worker::v1::Lease& wire,
                                                   const std::string& worker_id) {
  std::optional<LiveLease> lease;
  BALLAST_ASSIGN_OR_RETURN(const auto work, LeasedWork::LoadHeld(tx, wire, worker_id));
  if (work == nullptr) return lease;
  lease.emplace();
  lease->epoch = wire.epoch();
  lease->worker_id = worker_id;
  lease->heard = true;
  BALLAST_ASSIGN_OR_RETURN(lease->coarse, work->IsCoarse());
  BALLAST_ASSIGN_OR_RETURN(lease->sign, SignUnder(tx, worker_id, wire));
  return lease;
}

absl::StatusOr<std::optional<GivenLease>> FindLastLease(Transaction& tx,
                                                        const std::string& worker_id) {
  std::optional<GivenLease> last;
  BALLAST_ASSIGN_OR_RETURN(const auto sign, GetRecord<WorkerRecord>(tx, "", worker_id));
  if (!sign.has_value() || sign->resource().empty()) return last;
  worker::v1::Lease wire;
  wire.set_resource(sign->resource());
  wire.set_epoch(sign->epoch());
  BALLAST_ASSIGN_OR_RETURN(const auto live, FindLease(tx, wire, worker_id));
  if (!live.has_value()) return last;
  last = GivenLease{std::move(wire), *live};
  last->live.heard = sign->heard();
  return last;
}

absl::Status TakeOverLeases(Transaction& tx, absl::Time now, absl::Duration term, bool watched,
                            LeaseTable& leases, WorkersById& workers, SignsSeen& seen,
                            std::vector<std::string>& moved) {
  BALLAST_ASSIGN_OR_RETURN(const SignsById signs, AllSigns(tx));
  std::set<std::string> stored;
  const auto take_over = [&](const std::string& resource, const LeaseRecord& record,
                             LeasedWork& work) -> absl::Status {
    stored.insert(resource);
    const auto sign = signs.find(record.worker_id());
    const bool has_sign = sign != signs.end() && IsUnder(sign->second, resource, record.epoch());
    worker::v1::Lease wire;
    wire.set_resource(resource);
    wire.set_epoch(record.epoch());
    if (LiveLease* known = leases.Find(wire, record.worker_id()); known != nullptr) {
      const bool has_new_sign = has_sign && sign->second.sign() != known->sign;
      if (has_new_sign) {
        TakeSign(sign->second, *known);
        moved.push_back(resource);
      }
      if (has_new_sign || !watched) known->expires = std::max(known->expires, now + term);
      return absl::OkStatus();
    }
    LiveLease lease;
    lease.epoch = record.epoch();
    lease.worker_id = record.worker_id();
    lease.expires = now + term;
    BALLAST_ASSIGN_OR_RETURN(lease.coarse, work.IsCoarse());
    if (has_sign) {
      TakeSign(sign->second, lease);
      moved.push_back(resource);
    }
    leases.Put(resource, lease);
    return absl::OkStatus();
  };
  for (const auto state : kLeasedStates) {
    BALLAST_RETURN_IF_ERROR(
        ForEachInState<JobRecord>(tx, state, [&](const JobRecord& record) -> absl::StatusOr<bool> {
          LeasedJob work(tx, record);
          BALLAST_RETURN_IF_ERROR(take_over(record.job().name(), record.lease(), work));
          return true;
        }));
  }
  BALLAST_RETURN_IF_ERROR(ForEachInState<VectorRecord>(
      tx, admin::v1::Vector::TRAINING, [&](const VectorRecord& record) -> absl::StatusOr<bool> {
        LeasedVector work(tx, record);
        BALLAST_RETURN_IF_ERROR(take_over(record.vector().name(), record.lease(), work));
        return true;
      }));
  leases.KeepOnly(stored);
  std::erase_if(seen, [&](const auto& entry) { return signs.count(entry.first) == 0; });
  for (const auto& [id, sign] : signs) {
    WorkerInfo& known = workers[id];
    const bool later =
        !known.has_last_seen_time() ||
        FromTimestamp(known.last_seen_time()) < FromTimestamp(sign.info().last_seen_time());
    if (later) known = sign.info();
    SignSeen& last = seen.try_emplace(id, SignSeen{0, now}).first->second;
    if (last.sign != sign.sign()) last = {sign.sign(), now};
  }
  return absl::OkStatus();
}

absl::Status ForgetWorkers(Transaction& tx, const SignsSeen& seen, absl::Time before) {
  for (const auto& [id, last] : seen) {
    if (last.since >= before) continue;
    BALLAST_ASSIGN_OR_RETURN(const auto record,
                             GetRecord<WorkerRecord>(tx, "", id, Hold::kExclusive));
    if (!record.has_value() || record->sign() != last.sign) continue;
    BALLAST_RETURN_IF_ERROR(tx.Delete(Kind::kWorker, "", id));
  }
  return absl::OkStatus();
}

absl::Status PrefetchSigns(Transaction& tx, const std::vector<std::string>& worker_ids,
                           size_t count, Hold hold) {
  std::vector<RowKey> keys;
  for (size_t i = 0; i < count; ++i) {
    keys.push_back({Kind::kWorker, "", worker_ids[i], hold});
  }
  return keys.empty() ? absl::OkStatus() : tx.Prefetch(keys);
}

}  // namespace ballast::server
