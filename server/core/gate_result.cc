// SPDX-License-Identifier: Apache-2.0
#include "server/core/gate_result.h"

#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/behaviour/behaviour_set.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/tenant_standing.h"

namespace ballast::server {
namespace {

using admin::v1::GateReport;

// Of 20 scales with 33 scores each, some 60 KiB.
constexpr size_t kMaxReportBytes = size_t{256} << 10;

absl::Status CheckReport(const JobRecord& record,
                         const worker::v1::SynchronizeRequest::DeltaResult& delta) {
  const auto invalid = [](const char* why) {
    return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID", why);
  };
  if (!record.has_gate_given()) {
    return delta.has_gate() ? invalid("the work had no gate, and the result has a report of one")
                            : absl::OkStatus();
  }
  if (!delta.has_gate()) {
    return invalid(
        "the work had a gate, and the result has no report of it; use the same version of worker "
        "and server");
  }
  const GateReport& report = delta.gate();
  if (report.gate_digest() != record.gate_given().digest()) {
    return invalid("the report is of another gate than the work had");
  }
  if (report.verdict() != GateReport::PASSED && report.verdict() != GateReport::FAILED) {
    return invalid("the report has no verdict");
  }
  bool good = report.ByteSizeLong() <= kMaxReportBytes &&
              report.failed_categories_size() <= static_cast<int>(behaviour::kMaxCategories) &&
              (report.verdict() == GateReport::FAILED || report.failed_categories().empty());
  for (const std::string& category : report.failed_categories()) {
    good = good && !category.empty() && category.size() <= behaviour::kMaxCategoryBytes;
  }
  return good ? absl::OkStatus() : invalid("the report of the gate makes no sense");
}

}  // namespace

absl::StatusOr<WorkEvent> TakeDelta(Transaction& tx, JobRecord& record,
                                    const worker::v1::SynchronizeRequest::DeltaResult& delta,
                                    const std::vector<BlobFile>& files, int withheld_budget,
                                    absl::Time now) {
  BALLAST_RETURN_IF_ERROR(CheckReport(record, delta));
  for (const BlobFile& file : files) *record.add_delta_files() = file;
  v1::FineTuningJob& job = *record.mutable_job();
  if (delta.has_gate()) *record.mutable_gate()->mutable_report() = delta.gate();
  if (delta.gate().verdict() != GateReport::FAILED) {
    job.set_delta(DeltaName(record.tenant(), record.id()));
    job.set_manifest_digest(delta.manifest_digest());
    return WorkEvent::kResult;
  }
  record.set_withheld_manifest_digest(delta.manifest_digest());
  *record.mutable_gate()->mutable_withheld_time() = ToTimestamp(now);
  *job.mutable_gate_verdict()->mutable_categories() = delta.gate().failed_categories();
  BALLAST_RETURN_IF_ERROR(DrawWithheld(tx, record.tenant(), withheld_budget, now));
  return WorkEvent::kWithheld;
}

}  // namespace ballast::server
