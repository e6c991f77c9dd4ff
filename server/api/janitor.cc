// SPDX-License-Identifier: Apache-2.0
#include "server/api/janitor.h"

#include <vector>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"

namespace ballast::server {
namespace {
// Few: what is written anew under one of these names waits for it.
constexpr size_t kAtOnce = 20;
// Of the object store, before a round ends: one object may be locked, more are a network that is
// cut.
constexpr int kMostFailures = 3;
}  // namespace

void Janitor::Clean() {
  bool more = true;
  while (more) {
    const auto cleaned = CleanSome();
    if (!cleaned.ok()) {
      spdlog::error("old blobs cannot be looked up or struck off, it is tried again: {}",
                    ForLog(cleaned.status()));
      return;
    }
    more = *cleaned;
  }
  // Where the store was given up, the next round begins with what this one has not come to.
  if (!unreachable_) skipped_.clear();
}

absl::StatusOr<std::vector<std::string>> Janitor::Garbage(size_t most) {
  std::vector<std::string> garbage;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(garbage, tx.ListGarbage(static_cast<int>(most)));
    return absl::OkStatus();
  }));
  return garbage;
}

absl::StatusOr<bool> Janitor::CleanSome() {
  unreachable_ = false;
  // What was skipped is still listed, before what has not been looked at.
  const size_t most = skipped_.size() + kAtOnce;
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> listed, Garbage(most));
  std::vector<std::string> wanted;
  for (const std::string& prefix : listed) {
    if (skipped_.count(prefix) == 0) wanted.push_back(prefix);
  }
  const std::set<std::string> free = unnamed_.BeginDeleting(wanted);
  const absl::Cleanup end = [this] { unnamed_.EndDeleting(); };
  for (const std::string& prefix : wanted) {
    if (free.count(prefix) == 0) skipped_.insert(prefix);
  }
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> still, Garbage(most));
  std::vector<std::string> deleted;
  int failures = 0;
  for (const std::string& prefix : still) {
    if (free.count(prefix) == 0 || unreachable_) continue;
    const absl::Status status = blobs_.DeletePrefix(prefix);
    if (status.ok()) {
      PassKillPoint("server.garbage.deleted");
      spdlog::info("deleted: the bytes of {}", prefix);
      deleted.push_back(prefix);
    } else {
      spdlog::warn("old blobs cannot be deleted, it is tried again: {}", ForLog(status));
      skipped_.insert(prefix);
      // The rest would wait for the same network, one after the other.
      unreachable_ = ErrorReason(status) == "OBJECT_STORE" && ++failures == kMostFailures;
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
  return !unreachable_ && listed.size() == most;
}

}  // namespace ballast::server
