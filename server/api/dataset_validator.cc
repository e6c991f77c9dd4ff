// SPDX-License-Identifier: Apache-2.0
#include "server/api/dataset_validator.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {
namespace {

constexpr int kMaxLosses = 3;
constexpr absl::Duration kFirstPause = absl::Seconds(5);
constexpr absl::Duration kLongestPause = absl::Minutes(5);
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

std::set<std::string> DatasetValidator::Pausing(absl::Time now) const {
  std::set<std::string> names;
  for (const auto& [name, failed] : failed_) {
    if (failed.next_try > now) names.insert(name);
  }
  return names;
}

void DatasetValidator::CheckAll() {
  absl::MutexLock lock(&checking_mutex_);
  while (!stopping_) {
    const absl::Time now = clock_.Now();
    const auto next = datasets_.NextToValidate(Pausing(now));
    if (!next.ok()) {
      spdlog::error("looking for data sets to check failed: {}", ForLog(next.status()));
      return;
    }
    if (!next->has_value()) {
      // What neither pauses nor waits was deleted.
      std::erase_if(failed_, [&](const auto& entry) { return entry.second.next_try <= now; });
      return;
    }
    const std::string& name = (*next)->dataset.dataset().name();
    const auto check = checks_.Begin((*next)->base, (*next)->dataset.dataset().format());
    auto report =
        check.ok() ? Check(**next, **check) : absl::StatusOr<v1::ValidationReport>(check.status());
    if (stopping_) return;
    if (!report.ok()) {
      spdlog::warn("checking {} failed: {}", name, ForLog(report.status()));
      Failed& failed = failed_[name];
      // A damaged base model says nothing of the data set.
      if (check.ok() && absl::IsDataLoss(report.status())) ++failed.losses;
      if (failed.losses < kMaxLosses) {
        failed.pause = std::clamp(2 * failed.pause, kFirstPause, kLongestPause);
        failed.next_try = now + failed.pause;
        const absl::Status given_up = datasets_.GiveUpValidation(**next);
        if (!given_up.ok()) {
          spdlog::warn("leaving {} to other servers failed: {}", name, ForLog(given_up));
        }
        continue;
      }
      report = FailedReport(report.status());
    }
    PassKillPoint("server.dataset.checked");
    const absl::Status stored = datasets_.StoreReport(**next, *report);
    if (!stored.ok()) {
      spdlog::error("storing the report of {} failed: {}", name, ForLog(stored));
      return;
    }
    PassKillPoint("server.dataset.reported");
    failed_.erase(name);
    spdlog::info("checked {}: {} rows accepted, {} rejected", name, report->rows_accepted(),
                 report->rows_rejected());
  }
}

absl::StatusOr<v1::ValidationReport> DatasetValidator::Check(const DatasetCatalog::ToValidate& next,
                                                             RowCheck& check) {
  BALLAST_ASSIGN_OR_RETURN(const auto reader, blobs_.Open(next.dataset.blob()));
  if (reader->size_bytes() != next.dataset.dataset().size_bytes()) {
    return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                     "the stored file has another size");
  }
  for (int64_t offset = 0; offset < reader->size_bytes() && !stopping_; offset += kChunkBytes) {
    BALLAST_ASSIGN_OR_RETURN(const std::string bytes, reader->Read(offset, kChunkBytes));
    BALLAST_RETURN_IF_ERROR(check.Feed(bytes));
  }
  return check.Finish();
}

}  // namespace ballast::server
