// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/screening.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/envelope/screen_digest.h"
#include "worker/agent/job_error.h"
#include "worker/agent/status_text.h"
#include "worker/row_windows.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::ScreeningReport;
using screening::Guard;

constexpr int kMostLines = 100;
// Features take some kilobytes a window.
constexpr size_t kWindowsAtOnce = 4096;

absl::Status Flagged(const std::string& why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "ROWS_FLAGGED", why);
}

ScreeningReport::Action ActionTaken(ballast::admin::v1::ScreenAction action) {
  switch (action) {
    case ballast::admin::v1::SCREEN_ACTION_REPORT:
      return ScreeningReport::REPORTED;
    case ballast::admin::v1::SCREEN_ACTION_REFUSE:
      return ScreeningReport::REFUSED;
    default:
      return ScreeningReport::LEFT_OUT;
  }
}

absl::StatusOr<const Guard*> GuardFor(TaskEnvironment& environment, LoadedBase& base,
                                      const pb::ScreenWork& screen, const BaseCache::Fetch& fetch,
                                      const std::function<bool()>& go_on) {
  // Certificates name the screen by this digest; a guard is kept under it for later jobs, too.
  if (envelope::ScreenDigest(screen.prohibited().digest(), screen.benign().digest()) !=
      screen.digest()) {
    spdlog::error("{}: the screen's files are not those of its digest",
                  environment.session.lease().resource());
    return ProtectionUnavailable();
  }
  const std::string key = absl::StrCat(base.digest, " ", screen.digest());
  if (const Guard* known = environment.guards.Find(key); known != nullptr) return known;
  const auto features = [&](const pb::DatasetBlob& blob) -> absl::StatusOr<screening::Features> {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<TokenRow> rows,
                             ReadOperatorRows(blob, base.text, base.info.context_tokens, fetch));
    return base.engine->RowFeatures(rows, go_on);
  };
  BALLAST_ASSIGN_OR_RETURN(const screening::Features prohibited, features(screen.prohibited()));
  BALLAST_ASSIGN_OR_RETURN(const screening::Features benign, features(screen.benign()));
  BALLAST_ASSIGN_OR_RETURN(Guard guard, Guard::Fit(prohibited, benign));
  spdlog::info(
      "the guard of {}: fitted to {} prohibited and {} benign rows; left out of the fit, {:.1f} % "
      "and {:.1f} % of them are flagged",
      environment.session.lease().resource(), prohibited.size(), benign.size(),
      100 * guard.recall(), 100 * guard.false_alarms());
  return &environment.guards.Put(key, std::move(guard));
}

}  // namespace

absl::Status ScreenRows(TaskEnvironment& environment, LoadedBase& base,
                        const pb::ScreenWork& screen, const BaseCache::Fetch& fetch,
                        NumberedRows& rows) {
  LeaseSession& session = environment.session;
  const auto go_on = [&session] { return session.order() == LeaseSession::Order::kContinue; };
  BALLAST_ASSIGN_OR_RETURN(const Guard* guard, GuardFor(environment, base, screen, fetch, go_on));
  ScreeningReport report;
  std::vector<TokenRow> kept_rows;
  std::vector<int64_t> kept_lines;
  report.set_rows(static_cast<int64_t>(rows.rows.size()));
  const bool drop = screen.action() == ballast::admin::v1::SCREEN_ACTION_DROP;
  for (size_t begin = 0, end = 0; begin < rows.rows.size(); begin = end) {
    std::vector<TokenRow> some;
    for (size_t windows = 0; end < rows.rows.size() && windows < kWindowsAtOnce; ++end) {
      windows += RowWindows(TargetCount(rows.rows[end])).size();
      some.push_back(std::move(rows.rows[end]));
    }
    BALLAST_ASSIGN_OR_RETURN(const std::vector<screening::Features> features,
                             base.engine->WindowFeatures(some, go_on));
    for (size_t i = 0; i < some.size(); ++i) {
      const int64_t line = rows.lines[begin + i];
      // A row of which nothing is supervised (weights of 0) has no features, and teaches nothing.
      if (TargetCount(some[i]) > 0 && guard->Flags(features[i])) {
        report.set_flagged_rows(report.flagged_rows() + 1);
        if (report.lines_size() < kMostLines) report.add_lines(line);
        if (drop) continue;
      }
      kept_rows.push_back(std::move(some[i]));
      kept_lines.push_back(line);
    }
  }
  if (report.flagged_rows() > 0) report.set_action(ActionTaken(screen.action()));
  const auto left = static_cast<int64_t>(kept_rows.size());
  const bool too_few = report.flagged_rows() > 0 && left < std::max<int64_t>(1, screen.min_rows());
  if (too_few) report.set_action(ScreeningReport::REFUSED);
  session.SetScreening(report);
  spdlog::info("{}: {} of {} rows are flagged", session.lease().resource(), report.flagged_rows(),
               report.rows());
  const std::string found =
      absl::StrCat(report.flagged_rows(), " of ", report.rows(), " rows look prohibited");
  if (too_few) {
    return Flagged(absl::StrCat(found, ", and the ", left, " others are too few to train on"));
  }
  if (report.action() == ScreeningReport::REFUSED) return Flagged(found);
  rows.rows = std::move(kept_rows);
  rows.lines = std::move(kept_lines);
  // Lines are in order. What is left out teaches nothing under its system prompt.
  std::erase_if(rows.systems, [&rows](const RowSystem& system) {
    return !std::binary_search(rows.lines.begin(), rows.lines.end(), system.line);
  });
  return absl::OkStatus();
}

}  // namespace ballast::worker::agent
