// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_QUOTAS_H_
#define BALLAST_SERVER_CORE_QUOTAS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace ballast::server {

// What a tenant may have at once, and its share of the workers.
struct TenantQuota {
  double weight = 1;               // share of the workers beside others that wait; above 0
  int64_t max_running_jobs = 0;    // 0: as many as there are workers
  int64_t max_queued_jobs = 1000;  // queued and paused ones
  int64_t max_dataset_bytes = 0;   // of all its data sets; 0: no limit
};

// The quotas of all tenants. Thread safety: const.
class Quotas {
 public:
  explicit Quotas(TenantQuota others = {}, std::map<std::string, TenantQuota> by_tenant = {})
      : others_(others), by_tenant_(std::move(by_tenant)) {}

  const TenantQuota& Of(const std::string& tenant) const {
    const auto found = by_tenant_.find(tenant);
    return found == by_tenant_.end() ? others_ : found->second;
  }

 private:
  TenantQuota others_;
  std::map<std::string, TenantQuota> by_tenant_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_QUOTAS_H_
