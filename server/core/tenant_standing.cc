// SPDX-License-Identifier: Apache-2.0
#include "server/core/tenant_standing.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/fair_share.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

using admin::v1::TenantStanding;

constexpr int kUnfreezesKept = 50;
constexpr size_t kMaxReasonBytes = 1000;

}  // namespace

absl::StatusOr<TenantRecord> LoadTenant(Transaction& tx, const std::string& tenant, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<TenantRecord>(tx, "", tenant, hold));
  if (record.has_value()) return *std::move(record);
  TenantRecord fresh;
  fresh.set_id(tenant);
  fresh.mutable_standing()->set_name(absl::StrCat("tenants/", tenant));
  fresh.mutable_standing()->set_state(TenantStanding::ACTIVE);
  return fresh;
}

absl::Status SaveTenant(Transaction& tx, const TenantRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const auto stored,
                           tx.Get(Kind::kTenant, "", record.id(), Hold::kExclusive));
  return stored.has_value() ? ReplaceRecord(tx, record) : InsertRecord(tx, record);
}

absl::StatusOr<TenantRecord> HoldTenant(Transaction& tx, const std::string& tenant) {
  BALLAST_ASSIGN_OR_RETURN(auto stored, GetRecord<TenantRecord>(tx, "", tenant, Hold::kExclusive));
  if (stored.has_value()) return *std::move(stored);
  BALLAST_ASSIGN_OR_RETURN(TenantRecord fresh, LoadTenant(tx, tenant, Hold::kNone));
  // Insert, not Add: what is read next must come after it.
  BALLAST_RETURN_IF_ERROR(tx.Insert(Kind::kTenant, ToRow(fresh)).status());
  return fresh;
}

absl::StatusOr<bool> IsFrozen(Transaction& tx, const std::string& tenant) {
  BALLAST_ASSIGN_OR_RETURN(const TenantRecord record, LoadTenant(tx, tenant, Hold::kNone));
  return record.standing().state() == TenantStanding::FROZEN;
}

absl::Status CheckMaySubmit(Transaction& tx, const std::string& tenant) {
  BALLAST_ASSIGN_OR_RETURN(const bool frozen, IsFrozen(tx, tenant));
  if (!frozen) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "TENANT_FROZEN",
                   "too many deltas of this tenant were withheld, so it can submit no jobs until "
                   "the operator has looked at them; ask the operator");
}

absl::Status DrawWithheld(Transaction& tx, const std::string& tenant, int budget, absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(TenantRecord record, LoadTenant(tx, tenant, Hold::kExclusive));
  TenantStanding& standing = *record.mutable_standing();
  standing.set_withheld_drawn(standing.withheld_drawn() + 1);
  standing.set_withheld_total(standing.withheld_total() + 1);
  if (standing.withheld_drawn() >= budget && standing.state() != TenantStanding::FROZEN) {
    standing.set_state(TenantStanding::FROZEN);
    *standing.mutable_freeze_time() = ToTimestamp(now);
  }
  return SaveTenant(tx, record);
}

absl::Status GiveBackWithheld(Transaction& tx, const std::string& tenant, absl::Time withheld_at) {
  BALLAST_ASSIGN_OR_RETURN(TenantRecord record, LoadTenant(tx, tenant, Hold::kExclusive));
  TenantStanding& standing = *record.mutable_standing();
  if (!standing.unfreezes().empty() &&
      withheld_at <= FromTimestamp(standing.unfreezes().rbegin()->time())) {
    return absl::OkStatus();
  }
  standing.set_withheld_drawn(std::max(0, standing.withheld_drawn() - 1));
  return SaveTenant(tx, record);
}

absl::Status CheckReason(const std::string& reason) {
  if (absl::StripAsciiWhitespace(reason).empty()) {
    return FieldError("reason", "REASON_REQUIRED",
                      "reason is empty; say why, it is kept with the decision");
  }
  if (reason.size() > kMaxReasonBytes) {
    return FieldError("reason", "REASON_TOO_LONG",
                      absl::StrCat("reason has ", reason.size(), " bytes; at most ",
                                   kMaxReasonBytes, " are kept"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TenantStanding> TenantStandings::Get(const std::string& tenant) {
  TenantStanding standing;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const TenantRecord record, LoadTenant(tx, tenant, Hold::kNone));
    standing = record.standing();
    return absl::OkStatus();
  }));
  standing.set_withheld_budget(budget_);
  return standing;
}

absl::StatusOr<TenantStanding> TenantStandings::Unfreeze(absl::Time now, const std::string& who,
                                                         const std::string& tenant,
                                                         const std::string& reason) {
  BALLAST_RETURN_IF_ERROR(CheckReason(reason));
  TenantStanding result;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(TenantRecord record, LoadTenant(tx, tenant, Hold::kExclusive));
    TenantStanding& standing = *record.mutable_standing();
    if (standing.state() != TenantStanding::FROZEN) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "TENANT_NOT_FROZEN",
                       absl::StrCat(standing.name(), " is not frozen; it may submit jobs"));
    }
    standing.set_state(TenantStanding::ACTIVE);
    standing.clear_freeze_time();
    standing.set_withheld_drawn(0);
    TenantStanding::Unfreeze& unfreeze = *standing.add_unfreezes();
    unfreeze.set_reason(reason);
    unfreeze.set_decided_by(who);
    *unfreeze.mutable_time() = ToTimestamp(now);
    if (standing.unfreezes_size() > kUnfreezesKept) {
      standing.mutable_unfreezes()->DeleteSubrange(0, standing.unfreezes_size() - kUnfreezesKept);
    }
    result = standing;
    BALLAST_RETURN_IF_ERROR(SaveTenant(tx, record));
    return LineUpAnew(tx, tenant, quotas_.Of(tenant).weight, now);
  }));
  listener_.WorkAdded();
  result.set_withheld_budget(budget_);
  return result;
}

}  // namespace ballast::server
