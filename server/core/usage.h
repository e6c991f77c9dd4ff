// SPDX-License-Identifier: Apache-2.0
// What jobs use and cost. Functions over a transaction, and the tenants' view.
#ifndef BALLAST_SERVER_CORE_USAGE_H_
#define BALLAST_SERVER_CORE_USAGE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/money.pb.h"
#include "ballast/v1/usage_service.pb.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// Cost of `tokens` at a price for a million of them, rounded to billionths; unset currency: none.
v1::Money CostOf(const v1::Money& price_per_million_tokens, int64_t tokens);

// Writes into a job that has just ended what it used, and adds that to its tenant's month. Tokens
// are those of its steps, once each, however often they were trained; safety rows are the
// platform's. A job that FAILED by the platform's fault, or since nobody decided on its delta,
// costs nothing. The caller stores `record`.
absl::Status AccountFor(Transaction& tx, JobRecord& record, absl::Time now);

// Failures are those of ballast.v1.UsageService. Thread safety: thread-safe.
class UsageCatalog {
 public:
  // `store` must outlive the catalog.
  explicit UsageCatalog(JobStore& store) : store_(store) {}

  absl::StatusOr<v1::ListMonthlyUsageResponse> List(const std::string& tenant,
                                                    const v1::ListMonthlyUsageRequest& request);

 private:
  JobStore& store_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_USAGE_H_
