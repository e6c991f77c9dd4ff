// SPDX-License-Identifier: Apache-2.0
#include "server/api/janitor.h"

#include <vector>

#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {
namespace {
// Few: imports that begin wait for it.
constexpr size_t kAtOnce = 20;
}  // namespace

void Janitor::Clean() {
  std::set<std::string> skipped;
  bool more = true;
  while (more) {
    const auto cleaned = CleanSome(skipped);
    if (!cleaned.ok()) {
      spdlog::error("old blobs cannot be looked up or struck off, it is tried again: {}",
                    ForLog(cleaned.status()));
      return;
    }
    more = *cleaned;
  }
}

absl::StatusOr<bool> Janitor::CleanSome(std::set<std::string>& skipped) {
  absl::MutexLock lock(&unnamed_.mutex());
  std::vector<std::string> garbage;
  // What was skipped is still listed, before what has not been looked at.
  const size_t most = skipped.size() + kAtOnce;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(garbage, tx.ListGarbage(static_cast<int>(most)));
    return absl::OkStatus();
  }));
  std::vector<std::string> deleted;
  for (const std::string& prefix : garbage) {
    if (skipped.count(prefix) != 0) continue;
    if (unnamed_.IsHeld(prefix)) {
      skipped.insert(prefix);
      continue;
    }
    const absl::Status status = blobs_.DeletePrefix(prefix);
    if (status.ok()) {
      PassKillPoint("server.garbage.deleted");
      spdlog::info("deleted: the bytes of {}", prefix);
      deleted.push_back(prefix);
    } else {
      spdlog::warn("old blobs cannot be deleted, it is tried again: {}", ForLog(status));
      skipped.insert(prefix);
    }
  }
  if (!deleted.empty()) {
    BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
      for (const std::string& prefix : deleted) {
        BALLAST_RETURN_IF_ERROR(tx.RemoveGarbage(prefix));
      }
      return absl::OkStatus();
    }));
  }
  return garbage.size() == most;
}

}  // namespace ballast::server
