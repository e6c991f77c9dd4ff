// SPDX-License-Identifier: Apache-2.0
#include "server/api/janitor.h"

#include <vector>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/platform_fault.h"
#include "server/core/live_servers.h"

namespace ballast::server {
namespace {
// Few: what is written anew under one of these names waits for it.
constexpr int kAtOnce = 20;
// Of the object store, before a round ends: one object may be locked, more are a network that is
// cut.
constexpr int kMostFailures = 3;
}  // namespace

void Janitor::Clean() {
  absl::MutexLock lock(&cleaning_mutex_);
  sweep_();
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
  if (!unreachable_) after_.clear();
}

absl::StatusOr<std::vector<std::string>> Janitor::Listed() {
  std::vector<std::string> listed;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListGarbage(after_, kAtOnce));
    for (const GarbageRow& row : rows) listed.push_back(row.blob_prefix);
    return absl::OkStatus();
  }));
  return listed;
}

absl::StatusOr<std::vector<std::string>> Janitor::Hold(const std::set<std::string>& prefixes) {
  std::vector<std::string> held;
  if (prefixes.empty()) return held;
  const auto hold = [&](Transaction& tx) -> absl::Status {
    held.clear();
    for (const std::string& prefix : prefixes) {
      BALLAST_ASSIGN_OR_RETURN(const auto garbage, tx.GetGarbage(prefix));
      if (!garbage.has_value()) continue;
      BALLAST_ASSIGN_OR_RETURN(const bool elsewhere, IsAtAnotherServer(tx, garbage->holder));
      if (elsewhere) continue;
      if (store_.shared()) BALLAST_RETURN_IF_ERROR(tx.AddGarbage(prefix, tx.owner()));
      held.push_back(prefix);
    }
    return absl::OkStatus();
  };
  BALLAST_RETURN_IF_ERROR(store_.shared() ? store_.Update(hold) : store_.Read(hold));
  return held;
}

absl::Status Janitor::EndHold(const std::vector<std::string>& deleted,
                              const std::vector<std::string>& failed) {
  if (deleted.empty() && (failed.empty() || !store_.shared())) return absl::OkStatus();
  return store_.Update([&](Transaction& tx) -> absl::Status {
    // Another server that took this one for gone may be writing there by now.
    const auto is_own = [&](const std::string& prefix) -> absl::StatusOr<bool> {
      BALLAST_ASSIGN_OR_RETURN(const auto garbage, tx.GetGarbage(prefix));
      return garbage.has_value() && (!store_.shared() || garbage->holder == tx.owner());
    };
    for (const std::string& prefix : deleted) {
      BALLAST_ASSIGN_OR_RETURN(const bool own, is_own(prefix));
      if (own) BALLAST_RETURN_IF_ERROR(tx.RemoveGarbage(prefix));
    }
    for (const std::string& prefix : failed) {
      BALLAST_ASSIGN_OR_RETURN(const bool own, is_own(prefix));
      if (!own) continue;
      BALLAST_RETURN_IF_ERROR(tx.RemoveGarbage(prefix));
      BALLAST_RETURN_IF_ERROR(tx.AddGarbage(prefix));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<bool> Janitor::CleanSome() {
  unreachable_ = false;
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> listed, Listed());
  if (listed.empty()) return false;
  const std::set<std::string> free = unnamed_.BeginDeleting(listed);
  const absl::Cleanup end = [this] { unnamed_.EndDeleting(); };
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> held, Hold(free));
  after_ = listed.back();
  std::vector<std::string> deleted, failed;
  int failures = 0;
  for (const std::string& prefix : held) {
    if (unreachable_ || !is_sure_()) {
      failed.push_back(prefix);
      continue;
    }
    const absl::Status status = blobs_.DeletePrefix(prefix);
    if (status.ok()) {
      PassKillPoint("server.garbage.deleted");
      spdlog::info("deleted: the bytes of {}", prefix);
      deleted.push_back(prefix);
      continue;
    }
    spdlog::warn("old blobs cannot be deleted, it is tried again: {}", ForLog(status));
    failed.push_back(prefix);
    // The rest would wait for the same network, one after the other.
    unreachable_ = ErrorReason(status) == "OBJECT_STORE" && ++failures == kMostFailures;
    if (unreachable_) after_ = prefix;
  }
  BALLAST_RETURN_IF_ERROR(EndHold(deleted, failed));
  return !unreachable_ && listed.size() == kAtOnce;
}

}  // namespace ballast::server
