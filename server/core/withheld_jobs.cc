// SPDX-License-Identifier: Apache-2.0
#include "server/core/withheld_jobs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/job_catalog.h"
#include "server/core/paging.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"
#include "server/core/transitions.h"
#include "server/core/vector_catalog.h"

namespace ballast::server {
namespace {

using admin::v1::GateDecision;
using admin::v1::JobGate;
using admin::v1::Vector;
using v1::FineTuningJob;

// Sorts after every tenant's id, so that a cursor with it stands behind all rows of its time.
constexpr char kBehindAllTenants[] = "~";

// After which waiting jobs are looked at again where none is due before.
constexpr absl::Duration kLookPeriod = absl::Minutes(1);

// What the tenant is told.
v1::JobError ErrorOf(GateDecision::Outcome outcome) {
  v1::JobError error;
  error.set_kind(v1::JobError::REFUSED);
  const bool refused = outcome == GateDecision::REFUSED;
  error.set_reason(refused ? "GATE_REFUSED" : kGateExpired);
  error.set_message(absl::StrCat(
      "the delta went beyond the limits of prohibited behaviour, and ",
      refused ? "the operator refused it" : "it was not released in time",
      ". Look for such rows in the data, and create a new job; ask the operator if you find none"));
  return error;
}

WorkEvent EventOf(GateDecision::Outcome outcome) {
  if (outcome == GateDecision::RELEASED) return WorkEvent::kReleased;
  return outcome == GateDecision::REFUSED ? WorkEvent::kRefused : WorkEvent::kExpired;
}

GateDecision MakeDecision(GateDecision::Outcome outcome, absl::Time now, const std::string& who,
                          const std::string& reason) {
  GateDecision decision;
  decision.set_outcome(outcome);
  decision.set_reason(reason);
  decision.set_decided_by(who);
  *decision.mutable_time() = ToTimestamp(now);
  return decision;
}

// FAILED_PRECONDITION (VECTOR_REJECTED) where the vector that the job was trained under is known by
// now not to protect.
absl::Status CheckVectorHolds(Transaction& tx, const JobRecord& record) {
  if (record.vector_id().empty()) return absl::OkStatus();  // of an unprotected base
  BALLAST_ASSIGN_OR_RETURN(const VectorRecord vector,
                           FindVector(tx, record.vector_id(), Hold::kShared));
  if (vector.vector().state() != Vector::REJECTED) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "VECTOR_REJECTED",
      absl::StrCat(record.job().name(), " was trained under ", vector.vector().name(),
                   ", which was REJECTED since, so its delta is not delivered; refuse it, or let "
                   "it expire"),
      {{"vector", vector.vector().name()}});
}

}  // namespace

absl::Time WithheldJobs::ExpiryOf(const JobRecord& record) const {
  return FromTimestamp(record.gate().withheld_time()) + expiry_;
}

JobGate WithheldJobs::ToGate(const JobRecord& record) const {
  JobGate gate = record.gate();
  gate.set_job(record.job().name());
  gate.set_state(record.job().state());
  gate.set_base_model(record.job().base_model());
  *gate.mutable_failed_categories() = gate.report().failed_categories();
  if (record.job().state() == FineTuningJob::WITHHELD) {
    *gate.mutable_expire_time() = ToTimestamp(ExpiryOf(record));
  }
  return gate;
}

absl::Status WithheldJobs::Enter(absl::Time now) {
  {
    absl::MutexLock lock(&mutex_);
    if (now < next_look_) return absl::OkStatus();
  }
  absl::Time next_look = now + std::min(expiry_, kLookPeriod);
  std::vector<TenantName> due;
  const auto look_at = [&](const JobRecord& record) -> absl::StatusOr<bool> {
    const absl::Time expiry = ExpiryOf(record);
    if (expiry <= now) {
      due.push_back({record.tenant(), record.id()});
    } else {
      next_look = std::min(next_look, expiry);
    }
    return true;
  };
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) {
    return ForEachInState<JobRecord>(tx, FineTuningJob::WITHHELD, look_at);
  }));
  for (const TenantName& name : due) {
    const absl::Status status =
        Decide(now, name, MakeDecision(GateDecision::EXPIRED, now, "", "")).status();
    // An operator may have been quicker.
    if (!status.ok() && ErrorReason(status) != "JOB_NOT_WITHHELD") return status;
  }
  absl::MutexLock lock(&mutex_);
  next_look_ = next_look;
  return absl::OkStatus();
}

absl::StatusOr<admin::v1::ListWithheldJobsResponse> WithheldJobs::List(
    const admin::v1::ListWithheldJobsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t after, ParsePageToken("withheld", request.page_token()));
  admin::v1::ListWithheldJobsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    StateCursor cursor;
    if (!request.page_token().empty()) cursor = {after, kBehindAllTenants, ""};
    int64_t last = 0;
    while (true) {
      BALLAST_ASSIGN_OR_RETURN(
          const auto rows, tx.ListByState(Kind::kJob, FineTuningJob::WITHHELD, cursor, size + 1));
      for (const Row& row : rows) {
        // A page ends between two times: the token is one. Jobs of one microsecond go together.
        if (response.jobs_size() >= size && row.queue_key != last) {
          response.set_next_page_token(MakePageToken("withheld", last));
          return absl::OkStatus();
        }
        BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<JobRecord>(row));
        JobGate& gate = *response.add_jobs();
        gate = ToGate(record);
        gate.clear_report();
        last = row.queue_key;
      }
      if (static_cast<int>(rows.size()) <= size) return absl::OkStatus();
      cursor = {rows.back().queue_key, rows.back().scope, rows.back().id};
    }
  }));
  return response;
}

absl::StatusOr<JobGate> WithheldJobs::Get(const TenantName& name) {
  JobGate gate;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<JobRecord>(tx, name.tenant, name.id));
    if (!record.has_value()) return JobNotFound(name);
    if (!record->gate().has_report()) {
      return MakeError(
          absl::StatusCode::kNotFound, "GATE_REPORT_NOT_FOUND",
          absl::StrCat(record->job().name(), " was measured by no gate: it is ",
                       FineTuningJob::State_Name(record->job().state()), ", or its base had none"));
    }
    gate = ToGate(*record);
    return absl::OkStatus();
  }));
  return gate;
}

absl::StatusOr<JobGate> WithheldJobs::Release(absl::Time now, const std::string& who,
                                              const TenantName& name, const std::string& reason) {
  BALLAST_RETURN_IF_ERROR(CheckReason(reason));
  return Decide(now, name, MakeDecision(GateDecision::RELEASED, now, who, reason));
}

absl::StatusOr<JobGate> WithheldJobs::Refuse(absl::Time now, const std::string& who,
                                             const TenantName& name, const std::string& reason) {
  BALLAST_RETURN_IF_ERROR(CheckReason(reason));
  return Decide(now, name, MakeDecision(GateDecision::REFUSED, now, who, reason));
}

absl::StatusOr<JobGate> WithheldJobs::Decide(absl::Time now, const TenantName& name,
                                             const GateDecision& decision) {
  JobGate gate;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto record,
                             GetRecord<JobRecord>(tx, name.tenant, name.id, Hold::kExclusive));
    if (!record.has_value()) return JobNotFound(name);
    FineTuningJob& job = *record->mutable_job();
    if (job.state() != FineTuningJob::WITHHELD) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "JOB_NOT_WITHHELD",
                       absl::StrCat(job.name(), " is ", FineTuningJob::State_Name(job.state()),
                                    "; there is nothing to decide on"),
                       {{"state", FineTuningJob::State_Name(job.state())}});
    }
    *record->mutable_gate()->mutable_decision() = decision;
    v1::JobError error;
    if (decision.outcome() == GateDecision::RELEASED) {
      BALLAST_RETURN_IF_ERROR(CheckVectorHolds(tx, *record));
      job.set_delta(DeltaName(name.tenant, name.id));
      job.set_manifest_digest(record->withheld_manifest_digest());
      BALLAST_RETURN_IF_ERROR(
          GiveBackWithheld(tx, name.tenant, FromTimestamp(record->gate().withheld_time())));
    } else {
      error = ErrorOf(decision.outcome());
      record->clear_delta_files();
    }
    BALLAST_RETURN_IF_ERROR(MoveJob(tx, *record, EventOf(decision.outcome()), error, now));
    gate = ToGate(*record);
    return absl::OkStatus();
  }));
  listener_.JobChanged(name.tenant, name.id);
  listener_.GarbageAdded();
  return gate;
}

}  // namespace ballast::server
