// SPDX-License-Identifier: Apache-2.0
#include "server/core/dataset_rules.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "server/core/dataset_catalog.h"
#include "server/core/job_catalog.h"
#include "server/core/live_servers.h"
#include "server/core/records.h"
#include "server/core/tenant_standing.h"

namespace ballast::server {
namespace {

// The longest that any link is valid (config.proto), with some to spare.
constexpr absl::Duration kLongestLinks = absl::Minutes(61);

}  // namespace

absl::StatusOr<DatasetRecord> FindDataset(Transaction& tx, const std::string& tenant,
                                          const TenantName& name, Hold hold) {
  if (name.tenant != tenant) return DatasetNotFound(name);
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<DatasetRecord>(tx, name.tenant, name.id, hold));
  if (!record.has_value()) return DatasetNotFound(name);
  return *std::move(record);
}

void SetDatasetState(DatasetRecord& record, v1::Dataset::State state) {
  record.mutable_dataset()->set_state(state);
  record.mutable_dataset()->set_etag(absl::StrCat(static_cast<int>(state)));
}

absl::Status CheckUploadIsFree(Transaction& tx, const DatasetRecord& record) {
  BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, record.written_at()));
  return elsewhere ? UploadInProgress(record.dataset().name()) : absl::OkStatus();
}

absl::Status StrikeDirectUpload(Transaction& tx, DatasetRecord& record) {
  if (!record.has_direct_upload()) return absl::OkStatus();
  const DirectUploadRecord& upload = record.direct_upload();
  BALLAST_ASSIGN_OR_RETURN(TenantRecord tenant, HoldTenant(tx, record.tenant()));
  LinkedUpload& linked = *tenant.add_still_linked();
  linked.set_dataset(record.id());
  linked.set_incoming(upload.incoming());
  linked.set_size_bytes(upload.size_bytes());
  *linked.mutable_links_end_time() =
      upload.has_links_end_time() ? upload.links_end_time()
                                  : ToTimestamp(FromTimestamp(upload.links_time()) + kLongestLinks);
  BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, tenant));
  BALLAST_RETURN_IF_ERROR(tx.AddGarbage(upload.incoming()));
  record.clear_direct_upload();
  return absl::OkStatus();
}

}  // namespace ballast::server
