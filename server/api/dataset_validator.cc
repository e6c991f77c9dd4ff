// SPDX-License-Identifier: Apache-2.0
#include "server/api/dataset_validator.h"

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

constexpr int kMaxFailures = 3;
constexpr size_t kChunkBytes = size_t{1} << 20;

v1::ValidationReport FailedReport(const absl::Status& status) {
  v1::ValidationReport report;
  v1::RowIssue& issue = *report.add_issues();
  issue.set_reason("CHECK_FAILED");
  issue.set_message("the rows could not be checked (" + ErrorReason(status) +
                    "); upload the file again, and tell the operator if it fails again");
  (*report.mutable_counts_by_reason())["CHECK_FAILED"] = 1;
  return report;
}

}  // namespace

void DatasetValidator::Stop() {
  stopping_ = true;
  loop_.Stop();
}

void DatasetValidator::CheckAll() {
  absl::MutexLock lock(&checking_mutex_);
  while (!stopping_) {
    const auto next = datasets_.NextToValidate();
    if (!next.ok()) {
      spdlog::error("looking for data sets to check failed: {}", ErrorReason(next.status()));
      return;
    }
    if (!next->has_value()) return;
    const std::string& name = (*next)->dataset.dataset().name();
    auto report = Check(**next);
    if (stopping_) return;
    if (!report.ok()) {
      spdlog::warn("checking {} failed: {}", name, ErrorReason(report.status()));
      if (++failures_[name] < kMaxFailures) return;
      report = FailedReport(report.status());
    }
    const absl::Status stored = datasets_.StoreReport(**next, *report);
    if (!stored.ok()) {
      spdlog::error("storing the report of {} failed: {}", name, ErrorReason(stored));
      return;
    }
    failures_.erase(name);
    spdlog::info("checked {}: {} rows accepted, {} rejected", name, report->rows_accepted(),
                 report->rows_rejected());
  }
}

absl::StatusOr<v1::ValidationReport> DatasetValidator::Check(
    const DatasetCatalog::ToValidate& next) {
  BALLAST_ASSIGN_OR_RETURN(const auto check,
                           checks_.Begin(next.base, next.dataset.dataset().format()));
  BALLAST_ASSIGN_OR_RETURN(const auto reader, blobs_.Open(next.dataset.blob()));
  if (reader->size_bytes() != next.dataset.dataset().size_bytes()) {
    return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                     "the stored file has another size");
  }
  for (int64_t offset = 0; offset < reader->size_bytes() && !stopping_; offset += kChunkBytes) {
    BALLAST_ASSIGN_OR_RETURN(const std::string bytes, reader->Read(offset, kChunkBytes));
    BALLAST_RETURN_IF_ERROR(check->Feed(bytes));
  }
  return check->Finish();
}

}  // namespace ballast::server
