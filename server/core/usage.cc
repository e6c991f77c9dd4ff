// SPDX-License-Identifier: Apache-2.0
#include "server/core/usage.h"

#include <algorithm>
#include <utility>

#include "absl/numeric/int128.h"
#include "common/base/status_macros.h"
#include "server/core/paging.h"
#include "server/core/records.h"
#include "server/core/withheld_jobs.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;
using v1::JobError;

constexpr int64_t kNanosPerUnit = 1'000'000'000;
constexpr int64_t kMillion = 1'000'000;

absl::int128 NanosOf(const v1::Money& money) {
  return absl::int128(money.units()) * kNanosPerUnit + money.nanos();
}

v1::Money MoneyOf(const std::string& currency, absl::int128 nanos) {
  v1::Money money;
  money.set_currency_code(currency);
  money.set_units(static_cast<int64_t>(nanos / kNanosPerUnit));
  money.set_nanos(static_cast<int32_t>(nanos % kNanosPerUnit));
  return money;
}

void Add(const v1::Money& cost, v1::MonthlyUsage& month) {
  for (v1::Money& known : *month.mutable_costs()) {
    if (known.currency_code() != cost.currency_code()) continue;
    known = MoneyOf(cost.currency_code(), NanosOf(known) + NanosOf(cost));
    return;
  }
  *month.add_costs() = cost;
}

}  // namespace

v1::Money CostOf(const v1::Money& price, int64_t tokens) {
  if (price.currency_code().empty()) return {};
  return MoneyOf(price.currency_code(), (NanosOf(price) * tokens + kMillion / 2) / kMillion);
}

absl::Status AccountFor(Transaction& tx, JobRecord& record, absl::Time now) {
  FineTuningJob& job = *record.mutable_job();
  const int64_t tokens = std::max(job.progress().trained_tokens(), record.most_trained_tokens());
  job.mutable_usage()->set_trained_tokens(tokens);
  const bool free =
      job.state() == FineTuningJob::FAILED &&
      (job.error().kind() == JobError::PLATFORM || job.error().reason() == kGateExpired);
  v1::Money cost = CostOf(record.price_per_million_tokens(), free ? 0 : tokens);
  if (!cost.currency_code().empty()) *job.mutable_usage()->mutable_cost() = cost;
  if (tokens == 0) return absl::OkStatus();

  const std::string month = absl::FormatTime("%Y-%m", now, absl::UTCTimeZone());
  BALLAST_ASSIGN_OR_RETURN(auto usage,
                           GetRecord<UsageRecord>(tx, record.tenant(), month, Hold::kExclusive));
  const bool stored = usage.has_value();
  if (!stored) {
    usage.emplace();
    usage->set_tenant(record.tenant());
    usage->mutable_usage()->set_month(month);
  }
  v1::MonthlyUsage& sum = *usage->mutable_usage();
  sum.set_jobs(sum.jobs() + 1);
  sum.set_trained_tokens(sum.trained_tokens() + tokens);
  if (!cost.currency_code().empty()) Add(cost, sum);
  return stored ? ReplaceRecord(tx, *usage) : InsertRecord(tx, *usage);
}

absl::StatusOr<v1::ListMonthlyUsageResponse> UsageCatalog::List(
    const std::string& tenant, const v1::ListMonthlyUsageRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t before, ParsePageToken("usage", request.page_token()));
  v1::ListMonthlyUsageResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows,
                             tx.ListByScope(Kind::kUsage, tenant, before, size + 1));
    for (const Row& row : rows) {
      if (response.months_size() == size) {
        response.set_next_page_token(MakePageToken("usage", rows[size - 1].sequence));
        break;
      }
      BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<UsageRecord>(row));
      *response.add_months() = record.usage();
    }
    return absl::OkStatus();
  }));
  return response;
}

}  // namespace ballast::server
