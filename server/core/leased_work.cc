// SPDX-License-Identifier: Apache-2.0
#include "server/core/leased_work.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/leased_job.h"
#include "server/core/leased_vector.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {

using worker::v1::SynchronizeRequest;

absl::StatusOr<std::unique_ptr<LeasedWork>> LeasedWork::Load(Transaction& tx,
                                                             const std::string& resource) {
  std::unique_ptr<LeasedWork> work;
  if (absl::StartsWith(resource, "vectors/")) {
    BALLAST_ASSIGN_OR_RETURN(const std::string id, ParseVectorName(resource, "lease.resource"));
    BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<VectorRecord>(tx, "", id, Hold::kExclusive));
    if (record.has_value()) work = std::make_unique<LeasedVector>(tx, *std::move(record));
    return work;
  }
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(resource, "lease.resource"));
  BALLAST_ASSIGN_OR_RETURN(auto record,
                           GetRecord<JobRecord>(tx, name.tenant, name.id, Hold::kExclusive));
  if (record.has_value()) work = std::make_unique<LeasedJob>(tx, *std::move(record));
  return work;
}

absl::StatusOr<std::unique_ptr<LeasedWork>> LeasedWork::LoadHeld(Transaction& tx,
                                                                 const worker::v1::Lease& lease,
                                                                 const std::string& worker_id) {
  BALLAST_ASSIGN_OR_RETURN(auto work, Load(tx, lease.resource()));
  if (work != nullptr && !work->IsHeld(lease, worker_id)) work.reset();
  return work;
}

bool LeasedWork::IsHeld(const worker::v1::Lease& wire, const std::string& worker_id) {
  return lease().epoch() == wire.epoch() && lease().worker_id() == worker_id;
}

absl::StatusOr<std::vector<BlobFile>> LeasedWork::FilesOfResult(
    const SynchronizeRequest::Finished& finished) const {
  switch (finished.outcome_case()) {
    case SynchronizeRequest::Finished::kDelta:
    case SynchronizeRequest::Finished::kVector:
      return ResultFiles(finished);
    case SynchronizeRequest::Finished::kError:
    case SynchronizeRequest::Finished::kCancelled:
    case SynchronizeRequest::Finished::kPaused:
    case SynchronizeRequest::Finished::kHandedBack:
      return std::vector<BlobFile>();
    case SynchronizeRequest::Finished::OUTCOME_NOT_SET:
      break;
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID",
                   "Finished must say how the lease ended");
}

absl::Status LeaseLost(const worker::v1::Lease& lease) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "LEASE_LOST",
                   absl::StrCat("the lease on ", lease.resource(), " with epoch ", lease.epoch(),
                                " is not held by this worker any more; drop the work"),
                   {{"resource", lease.resource()}});
}

absl::StatusOr<std::unique_ptr<LeasedWork>> HeldBy(Transaction& tx, const worker::v1::Lease& lease,
                                                   const std::string& worker_id) {
  BALLAST_ASSIGN_OR_RETURN(auto work, LeasedWork::LoadHeld(tx, lease, worker_id));
  if (work == nullptr) return LeaseLost(lease);
  return work;
}

}  // namespace ballast::server
