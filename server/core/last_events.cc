// SPDX-License-Identifier: Apache-2.0
#include "server/core/last_events.h"

#include "common/base/status_macros.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {

absl::StatusOr<std::vector<std::optional<int64_t>>> LastEvents(
    JobStore& store, const std::vector<std::string>& jobs) {
  std::vector<std::optional<TenantName>> names;
  std::vector<RowKey> keys;
  for (const std::string& job : jobs) {
    const auto name = ParseJobName(job, "name");
    names.push_back(name.ok() ? std::optional<TenantName>(*name) : std::nullopt);
    if (name.ok()) keys.push_back({Kind::kJob, name->tenant, name->id});
  }
  std::vector<std::optional<int64_t>> last(jobs.size());
  if (keys.empty()) return last;
  BALLAST_RETURN_IF_ERROR(store.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_RETURN_IF_ERROR(tx.Prefetch(keys));
    for (size_t i = 0; i < names.size(); ++i) {
      if (!names[i].has_value()) continue;
      BALLAST_ASSIGN_OR_RETURN(const auto record,
                               GetRecord<JobRecord>(tx, names[i]->tenant, names[i]->id));
      if (record.has_value() && !record->deleted()) last[i] = record->last_event();
    }
    return absl::OkStatus();
  }));
  return last;
}

}  // namespace ballast::server
