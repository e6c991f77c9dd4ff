// SPDX-License-Identifier: Apache-2.0
// How tenants stand with the gate. Every withheld verdict answers one question about what the gate
// asks; without a bound on their number the gate would be an oracle to train against. Each draws on
// a small budget of its tenant's, and at its end the tenant is FROZEN: nothing is submitted, and
// what is QUEUED waits, until an operator has looked.
#ifndef BALLAST_SERVER_CORE_TENANT_STANDING_H_
#define BALLAST_SERVER_CORE_TENANT_STANDING_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/gate.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// What the owner of a frozen tenant's jobs is told.
inline constexpr char kFrozenMessage[] =
    "the tenant is frozen after too many withheld deltas; the job waits until the operator has "
    "looked at them";

// The tenant's record, or a fresh one that is not stored yet.
absl::StatusOr<TenantRecord> LoadTenant(Transaction& tx, const std::string& tenant, Hold hold);
absl::Status SaveTenant(Transaction& tx, const TenantRecord& record);
// The tenant's record, which is stored first where there is none: of two transactions that count
// what the tenant has one waits for the other, which LoadTenant does not see to for a fresh one.
absl::StatusOr<TenantRecord> HoldTenant(Transaction& tx, const std::string& tenant);

absl::StatusOr<bool> IsFrozen(Transaction& tx, const std::string& tenant);

// FAILED_PRECONDITION (TENANT_FROZEN).
absl::Status CheckMaySubmit(Transaction& tx, const std::string& tenant);

// Counts a withheld verdict; freezes the tenant where it is the `budget`-th.
absl::Status DrawWithheld(Transaction& tx, const std::string& tenant, int budget, absl::Time now);

// A verdict, drawn at `withheld_at`, that an operator found to be wrong is not held against the
// tenant; an unfreeze since then has forgiven it already. Thaws nothing.
absl::Status GiveBackWithheld(Transaction& tx, const std::string& tenant, absl::Time withheld_at);

// INVALID_ARGUMENT (REASON_REQUIRED, REASON_TOO_LONG) for what an operator gives as reason.
absl::Status CheckReason(const std::string& reason);

// Standings as operators see them. Failures are those of ballast.admin.v1.GateService.
// Thread safety: thread-safe.
class TenantStandings {
 public:
  // All must outlive the object.
  TenantStandings(JobStore& store, ChangeListener& listener, const Quotas& quotas, int budget)
      : store_(store), listener_(listener), quotas_(quotas), budget_(budget) {}

  // A tenant that is not known has the standing of one that was never withheld anything.
  absl::StatusOr<admin::v1::TenantStanding> Get(const std::string& tenant);
  // `who`: label of the operator's key.
  absl::StatusOr<admin::v1::TenantStanding> Unfreeze(absl::Time now, const std::string& who,
                                                     const std::string& tenant,
                                                     const std::string& reason);

 private:
  JobStore& store_;
  ChangeListener& listener_;
  const Quotas& quotas_;
  const int budget_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_TENANT_STANDING_H_
