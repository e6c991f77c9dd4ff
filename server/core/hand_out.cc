// SPDX-License-Identifier: Apache-2.0
#include "server/core/hand_out.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/envelope.h"
#include "server/core/admission.h"
#include "server/core/fair_share.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/screen_catalog.h"
#include "server/core/tenant_standing.h"
#include "server/core/transitions.h"
#include "server/core/work_of.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;
using v1::FineTuningJob;
using worker::v1::Work;

// A new right for `worker_id`.
void NewLease(const std::string& worker_id, LeaseRecord* lease) {
  lease->set_epoch(lease->epoch() + 1);
  lease->set_worker_id(worker_id);
  lease->clear_retry_time();
}

absl::StatusOr<std::optional<Work>> TakeVector(Transaction& tx, const std::string& worker_id,
                                               absl::Time now) {
  std::optional<VectorRecord> next;
  BALLAST_RETURN_IF_ERROR(ForEachInState<VectorRecord>(
      tx, Vector::DRAFT, [&](const VectorRecord& listed) -> absl::StatusOr<bool> {
        BALLAST_ASSIGN_OR_RETURN(
            next, GetRecord<VectorRecord>(tx, "", listed.id(), Hold::kExclusiveOrNone));
        if (next.has_value() && next->vector().state() == Vector::DRAFT &&
            !RestsAfterError(next->lease(), now)) {
          return false;
        }
        next.reset();
        return true;
      }));
  if (!next.has_value()) return std::optional<Work>();
  NewLease(worker_id, next->mutable_lease());
  BALLAST_RETURN_IF_ERROR(MoveVector(tx, *next, WorkEvent::kTaken, {}, now));
  BALLAST_ASSIGN_OR_RETURN(Work work, WorkOf(tx, *next));
  return std::optional<Work>(std::move(work));
}

// Why a job cannot run at present.
struct Wait {
  bool for_unfreeze = false;  // else for a vector
  std::string why;            // for its owner; empty when it can run
};

absl::StatusOr<Wait> WhyItWaits(Transaction& tx, const JobRecord& record, bool frozen,
                                const std::optional<Protection>& protection) {
  if (frozen) return Wait{true, kFrozenMessage};
  if (!protection.has_value()) {
    return Wait{false,
                "the base model has no active security vector at present; the job waits for one"};
  }
  if (!protection->vector.has_value()) return Wait();
  BALLAST_ASSIGN_OR_RETURN(const DatasetRecord training,
                           DatasetOf(tx, record.job().training_dataset()));
  const absl::Status inside =
      envelope::CheckInside(PlaceOfJob(record.job().hyperparameters(), training),
                            protection->vector->envelope, "fine_tuning_job.");
  if (inside.ok()) return Wait();
  return Wait{false, absl::StrCat("the limits of the base model have changed since the job was "
                                  "created, and it waits for others; cancel it and create one "
                                  "inside of them: ",
                                  inside.message())};
}

// The job that was listed, held; empty when it does not wait any more, or another server is at it.
absl::StatusOr<std::optional<JobRecord>> HoldQueued(Transaction& tx, const JobRecord& listed) {
  BALLAST_ASSIGN_OR_RETURN(
      auto record, GetRecord<JobRecord>(tx, listed.tenant(), listed.id(), Hold::kExclusiveOrNone));
  if (record.has_value() && record->job().state() != FineTuningJob::QUEUED) record.reset();
  return record;
}

// The rows of a job's data sets, as far as their names can be read.
std::vector<RowKey> DatasetsOf(const JobRecord& record, Hold hold) {
  std::vector<RowKey> keys;
  for (const std::string& dataset :
       {record.job().training_dataset(), record.job().validation_dataset()}) {
    const auto name = ParseDatasetName(dataset, "");
    if (name.ok()) keys.push_back({Kind::kDataset, name->tenant, name->id, hold});
  }
  return keys;
}

bool WasSaid(const JobRecord& record, const Wait& wait) {
  return wait.for_unfreeze ? record.waits_for_unfreeze() : record.waits_for_vector();
}

absl::Status SayItWaits(Transaction& tx, const JobRecord& listed, const Wait& wait, absl::Time now,
                        std::vector<std::string>& changed_jobs) {
  BALLAST_ASSIGN_OR_RETURN(auto record, HoldQueued(tx, listed));
  if (!record.has_value() || WasSaid(*record, wait)) return absl::OkStatus();
  if (wait.for_unfreeze) {
    record->set_waits_for_unfreeze(true);
  } else {
    record->set_waits_for_vector(true);
  }
  v1::JobEvent event;
  event.set_message(wait.why);
  BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx, *record, std::move(event), now));
  changed_jobs.push_back(record->job().name());
  return ReplaceRecord(tx, *record);
}

// What protects each base, looked for once: that verifies signatures, and many jobs wait for the
// same base.
class ProtectionOfBases {
 public:
  ProtectionOfBases(Transaction& tx, const ServingVectors& serving) : tx_(tx), serving_(serving) {}

  absl::StatusOr<std::optional<Protection>> Of(const std::string& base_model) {
    if (const auto known = found_.find(base_model); known != found_.end()) return known->second;
    BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, BaseOf(tx_, base_model));
    BALLAST_ASSIGN_OR_RETURN(auto protection, serving_.Find(tx_, base));
    return found_[base_model] = std::move(protection);
  }

 private:
  Transaction& tx_;
  const ServingVectors& serving_;
  std::map<std::string, std::optional<Protection>> found_;
};

// How tenants stand, each looked up once.
class Tenants {
 public:
  Tenants(Transaction& tx, const Quotas& quotas) : tx_(tx), quotas_(quotas) {}

  // As far as it was looked up already.
  bool MayRunNoMore(const std::string& tenant) const {
    const auto known = found_.find(tenant);
    return known != found_.end() && !known->second.may_run;
  }
  absl::StatusOr<bool> IsFrozen(const std::string& tenant) {
    BALLAST_ASSIGN_OR_RETURN(const Standing* standing, Of(tenant));
    return standing->frozen;
  }
  absl::StatusOr<bool> MayRunOneMore(const std::string& tenant) {
    BALLAST_ASSIGN_OR_RETURN(const Standing* standing, Of(tenant));
    return standing->may_run;
  }
  // Both looked at again, with `chosen` jobs that are not written yet.
  absl::StatusOr<bool> StillMayRunOneMore(const std::string& tenant, int64_t chosen) {
    BALLAST_ASSIGN_OR_RETURN(auto* const standing, Of(tenant));
    BALLAST_ASSIGN_OR_RETURN(standing->frozen, server::IsFrozen(tx_, tenant));
    if (standing->frozen) return false;
    BALLAST_ASSIGN_OR_RETURN(standing->may_run,
                             MayRun(tx_, tenant, quotas_.Of(tenant), chosen + 1));
    return standing->may_run;
  }

 private:
  struct Standing {
    bool frozen = false;
    bool may_run = true;
  };

  absl::StatusOr<Standing*> Of(const std::string& tenant) {
    const auto known = found_.find(tenant);
    if (known != found_.end()) return &known->second;
    Standing standing;
    BALLAST_ASSIGN_OR_RETURN(standing.frozen, server::IsFrozen(tx_, tenant));
    BALLAST_ASSIGN_OR_RETURN(standing.may_run, MayRun(tx_, tenant, quotas_.Of(tenant), 1));
    return &(found_[tenant] = standing);
  }

  Transaction& tx_;
  const Quotas& quotas_;
  std::map<std::string, Standing> found_;
};

// Safety rows, screen and gate of the job's base, by which the attempt that begins now is trained
// and measured.
void GiveDefences(const BaseModelRecord& base, JobRecord& record) {
  record.clear_safety_rows_given();
  record.clear_screen_given();
  record.clear_gate_given();
  if (base.has_safety_rows()) {
    record.mutable_safety_rows_given()->set_blob(base.safety_rows_blob());
    *record.mutable_safety_rows_given()->mutable_rows() = base.safety_rows();
  }
  if (base.has_screen()) {
    record.mutable_screen_given()->set_blobs(base.screen_blobs());
    *record.mutable_screen_given()->mutable_screen() = base.screen();
  }
  if (base.has_gate()) {
    GateGiven& given = *record.mutable_gate_given();
    given.set_blob(base.gate_blob());
    given.set_digest(base.gate().digest());
    *given.mutable_limits() = base.gate().limits();
  }
}

// The base of a job that is about to run, held together with the vector and the data sets, and
// `protection` as it is now: nobody changes what decides before the job is known to run by it.
// They come after the job, against the order; the rare circle with who rejects the vector is the
// store's to break. Empty when the job may not run any more.
absl::StatusOr<std::optional<BaseModelRecord>> HoldWhatDecides(Transaction& tx,
                                                               const JobRecord& record,
                                                               const ServingVectors& serving,
                                                               Protection& protection) {
  BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base,
                           BaseOf(tx, record.job().base_model(), Hold::kShared));
  for (const std::string& name :
       {record.job().training_dataset(), record.job().validation_dataset()}) {
    if (!name.empty()) BALLAST_RETURN_IF_ERROR(DatasetOf(tx, name, Hold::kShared).status());
  }
  if (!protection.vector.has_value()) return std::make_optional(std::move(base));
  BALLAST_ASSIGN_OR_RETURN(const auto vector,
                           GetRecord<VectorRecord>(tx, "", protection.vector_id(), Hold::kShared));
  if (!vector.has_value()) return std::optional<BaseModelRecord>();
  auto judged = serving.Judge(*vector, base);
  if (!judged.ok()) return std::optional<BaseModelRecord>();
  protection = Protection{*std::move(judged)};
  BALLAST_ASSIGN_OR_RETURN(const Wait wait, WhyItWaits(tx, record, /*frozen=*/false, protection));
  if (!wait.why.empty()) return std::optional<BaseModelRecord>();
  return std::make_optional(std::move(base));
}

// A job that was listed and may run, as far as could be seen without holding anything.
struct Candidate {
  JobRecord listed;
  Protection protection;
};

// Keys of rows, each once.
class KeysOnce {
 public:
  void Add(RowKey key) {
    if (known_.emplace(key.kind, key.scope, key.id).second) keys_.push_back(std::move(key));
  }
  const std::vector<RowKey>& keys() const { return keys_; }

 private:
  std::vector<RowKey> keys_;
  std::set<std::tuple<Kind, std::string, std::string>> known_;
};

// Rows that jobs are taken with, in the order in which they are held.
std::vector<RowKey> RowsToTake(const std::vector<Candidate>& candidates) {
  KeysOnce keys;
  for (const Candidate& one : candidates) {
    keys.Add({Kind::kJob, one.listed.tenant(), one.listed.id(), Hold::kExclusiveOrNone});
  }
  for (const Candidate& one : candidates) {
    const auto base = ParseBaseModelName(one.listed.job().base_model(), "");
    if (base.ok()) keys.Add({Kind::kBaseModel, "", *base, Hold::kShared});
  }
  for (const Candidate& one : candidates) {
    for (const RowKey& dataset : DatasetsOf(one.listed, Hold::kShared)) keys.Add(dataset);
  }
  for (const Candidate& one : candidates) {
    if (!one.protection.vector.has_value()) continue;
    keys.Add({Kind::kVector, "", one.protection.vector_id(), Hold::kShared});
  }
  for (const Candidate& one : candidates) {
    keys.Add({Kind::kTenant, "", one.listed.tenant(), Hold::kShared});
  }
  RowKey time = VirtualTimeKey();
  time.hold = Hold::kExclusive;
  keys.Add(std::move(time));
  return keys.keys();
}

// What decides, beside the data set, which rows an attempt is trained on.
std::string ChoiceOfRows(const JobRecord& record) {
  const admin::v1::SafetyRows& safety = record.safety_rows_given().rows();
  const admin::v1::Screen& screen = record.screen_given().screen();
  return absl::StrCat(safety.digest(), " ", safety.share(), " ", screen.digest(), " ",
                      screen.action());
}

// A job that a worker gets.
struct Chosen {
  JobRecord record;  // held
  BaseModelRecord base;
  Protection protection;
  bool limited = false;  // its tenant may run so many at once, and it may have waited for that
};

// Looks through the queue for jobs that can run now.
class Chooser {
 public:
  Chooser(Transaction& tx, absl::Time now, const ServingVectors& serving, const Quotas& quotas)
      : tx_(tx),
        now_(now),
        serving_(serving),
        quotas_(quotas),
        protections_(tx, serving),
        tenants_(tx, quotas) {}

  // Up to `most` of them, in their order.
  absl::StatusOr<std::vector<Chosen>> Choose(size_t most, QueueFront& front) {
    if (front.IsKnown(now_)) {
      BALLAST_RETURN_IF_ERROR(LookThrough(front.last_taken(), most));
      if (!chosen_.empty()) front.Taken(ToRow(chosen_.back().record), false, now_);
    }
    if (chosen_.size() < most) {
      BALLAST_RETURN_IF_ERROR(LookThrough(StateCursor(), most));
      if (!chosen_.empty()) front.Taken(ToRow(chosen_.back().record), true, now_);
    }
    return std::move(chosen_);
  }

  // Jobs that were passed over and have not said why.
  const std::vector<std::pair<JobRecord, Wait>>& waiting() const { return waiting_; }

 private:
  bool IsChosen(const JobRecord& record) const {
    return std::any_of(chosen_.begin(), chosen_.end(), [&](const Chosen& chosen) {
      return chosen.record.job().name() == record.job().name();
    });
  }

  // Chooses from the queue after `cursor` until there are `most`.
  absl::Status LookThrough(StateCursor cursor, size_t most) {
    // Most of what is wanted is at the front.
    const int first_page = static_cast<int>(std::max<size_t>(4, most - chosen_.size()));
    constexpr int kPage = 64;
    for (int page = first_page;; page = kPage) {
      BALLAST_ASSIGN_OR_RETURN(const auto rows,
                               tx_.ListByState(Kind::kJob, FineTuningJob::QUEUED, cursor, page));
      BALLAST_RETURN_IF_ERROR(LookAt(rows, most));
      if (chosen_.size() >= most || static_cast<int>(rows.size()) < page) return absl::OkStatus();
      cursor = {rows.back().queue_key, rows.back().scope, rows.back().id};
    }
  }

  absl::Status LookAt(const std::vector<Row>& rows, size_t most) {
    std::vector<JobRecord> listed;
    KeysOnce seen;  // what is looked at, found at once and not one by one
    for (const Row& row : rows) {
      if (tenants_.MayRunNoMore(row.scope)) continue;
      BALLAST_ASSIGN_OR_RETURN(JobRecord record, FromRow<JobRecord>(row));
      if (RestsAfterError(record.lease(), now_) || IsChosen(record)) continue;
      seen.Add({Kind::kTenant, "", record.tenant(), Hold::kNone});
      for (const RowKey& dataset : DatasetsOf(record, Hold::kNone)) seen.Add(dataset);
      listed.push_back(std::move(record));
    }
    BALLAST_RETURN_IF_ERROR(tx_.Prefetch(seen.keys()));
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < listed.size() && chosen_.size() < most; ++i) {
      BALLAST_RETURN_IF_ERROR(Consider(std::move(listed[i]), candidates));
      if (candidates.size() < most - chosen_.size() && i + 1 < listed.size()) continue;
      BALLAST_RETURN_IF_ERROR(Take(std::exchange(candidates, {})));
    }
    return absl::OkStatus();
  }

  // Adds it to `candidates` where nothing that can be seen speaks against it.
  absl::Status Consider(JobRecord record, std::vector<Candidate>& candidates) {
    BALLAST_ASSIGN_OR_RETURN(const bool may_run, tenants_.MayRunOneMore(record.tenant()));
    if (!may_run) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(const bool frozen, tenants_.IsFrozen(record.tenant()));
    BALLAST_ASSIGN_OR_RETURN(auto protection, protections_.Of(record.job().base_model()));
    BALLAST_ASSIGN_OR_RETURN(Wait wait, WhyItWaits(tx_, record, frozen, protection));
    if (!wait.why.empty()) {
      if (!WasSaid(record, wait)) waiting_.emplace_back(std::move(record), std::move(wait));
      return absl::OkStatus();
    }
    candidates.push_back({std::move(record), *std::move(protection)});
    return absl::OkStatus();
  }

  // Holds them, all at once, and chooses those that may still run.
  absl::Status Take(std::vector<Candidate> candidates) {
    if (candidates.empty()) return absl::OkStatus();
    BALLAST_RETURN_IF_ERROR(tx_.Prefetch(RowsToTake(candidates)));
    for (Candidate& one : candidates) BALLAST_RETURN_IF_ERROR(TakeHeld(one.listed, one.protection));
    return absl::OkStatus();
  }

  absl::Status TakeHeld(const JobRecord& record, Protection& protection) {
    BALLAST_ASSIGN_OR_RETURN(auto held, HoldQueued(tx_, record));
    // Where it has moved back since it was listed, others are before it.
    if (!held.has_value() || held->start_tag() > record.start_tag()) return absl::OkStatus();
    // Looked at again now that the virtual time is held: claims of all servers come one after the
    // other from here.
    const int64_t of_tenant = std::count_if(chosen_.begin(), chosen_.end(), [&](const Chosen& c) {
      return c.record.tenant() == record.tenant();
    });
    BALLAST_ASSIGN_OR_RETURN(const bool may_run,
                             tenants_.StillMayRunOneMore(record.tenant(), of_tenant));
    if (!may_run) return absl::OkStatus();
    BALLAST_ASSIGN_OR_RETURN(auto base, HoldWhatDecides(tx_, *held, serving_, protection));
    if (!base.has_value()) return absl::OkStatus();
    const bool limited = quotas_.Of(record.tenant()).max_running_jobs > 0;
    chosen_.push_back({*std::move(held), *std::move(base), std::move(protection), limited});
    return absl::OkStatus();
  }

  Transaction& tx_;
  const absl::Time now_;
  const ServingVectors& serving_;
  const Quotas& quotas_;
  ProtectionOfBases protections_;
  Tenants tenants_;
  std::vector<Chosen> chosen_;
  // Changing rows while they are listed is avoided: these are written afterwards.
  std::vector<std::pair<JobRecord, Wait>> waiting_;
};

absl::StatusOr<Work> Give(Transaction& tx, Chosen& chosen, const std::string& worker_id,
                          absl::Time now, IdSource& ids) {
  JobRecord& record = chosen.record;
  const bool for_worker = !record.waits_for_vector() && !record.waits_for_unfreeze() &&
                          !record.lease().has_retry_time() && !chosen.limited;
  NewLease(worker_id, record.mutable_lease());
  record.set_waits_for_vector(false);
  record.set_waits_for_unfreeze(false);
  const std::string rows_before = ChoiceOfRows(record);
  GiveDefences(chosen.base, record);
  const bool other_rows = ChoiceOfRows(record) != rows_before;
  // A checkpoint holds moments of gradients under one vector, on one choice of rows: under another
  // it is of no use.
  if (record.vector_id() != chosen.protection.vector_id() || other_rows) {
    record.clear_checkpoint_blob();
    record.clear_checkpoint_step();
    record.set_vector_id(chosen.protection.vector_id());
    record.clear_protection_handle();
    if (chosen.protection.vector.has_value()) record.set_protection_handle(ids.NewId());
    // The training starts anew with it: what the old one reached is no point of the new curve.
    record.clear_evaluated_until_step();
    record.mutable_job()->clear_progress();
  }
  BALLAST_RETURN_IF_ERROR(AdvanceTo(tx, record, for_worker, now));
  const WorkEvent event = record.has_screen_given() ? WorkEvent::kTakenToScreen : WorkEvent::kTaken;
  BALLAST_RETURN_IF_ERROR(MoveJob(tx, record, event, {}, now));
  return WorkOf(tx, record);
}

}  // namespace

absl::StatusOr<std::string> WhyTheBaseKeeps(Transaction& tx, const JobRecord& record,
                                            const ServingVectors& serving) {
  ProtectionOfBases protections(tx, serving);
  BALLAST_ASSIGN_OR_RETURN(const auto protection, protections.Of(record.job().base_model()));
  BALLAST_ASSIGN_OR_RETURN(Wait wait, WhyItWaits(tx, record, /*frozen=*/false, protection));
  return std::move(wait.why);
}

bool RestsAfterError(const LeaseRecord& lease, absl::Time now) {
  if (!lease.has_retry_time()) return false;
  const absl::Duration rest = FromTimestamp(lease.retry_time()) - now;
  // A time that no rest could have come to was written by a clock that was wrong.
  return rest > absl::ZeroDuration() && rest <= kLongestRest;
}

absl::StatusOr<std::vector<Work>> TakeNext(Transaction& tx,
                                           const std::vector<std::string>& worker_ids,
                                           absl::Time now, IdSource& ids,
                                           const ServingVectors& serving, const Quotas& quotas,
                                           QueueFront& front,
                                           std::vector<std::string>& changed_jobs) {
  std::vector<Work> given;
  while (given.size() < worker_ids.size()) {
    BALLAST_ASSIGN_OR_RETURN(auto vector, TakeVector(tx, worker_ids[given.size()], now));
    if (!vector.has_value()) break;
    given.push_back(*std::move(vector));
  }
  const size_t wanted = worker_ids.size() - given.size();
  if (wanted == 0) return given;
  Chooser chooser(tx, now, serving, quotas);
  BALLAST_ASSIGN_OR_RETURN(std::vector<Chosen> chosen, chooser.Choose(wanted, front));
  for (const auto& [record, wait] : chooser.waiting()) {
    BALLAST_RETURN_IF_ERROR(SayItWaits(tx, record, wait, now, changed_jobs));
  }
  for (Chosen& job : chosen) {
    BALLAST_ASSIGN_OR_RETURN(Work work, Give(tx, job, worker_ids[given.size()], now, ids));
    changed_jobs.push_back(work.lease().resource());
    given.push_back(std::move(work));
  }
  return given;
}

}  // namespace ballast::server
