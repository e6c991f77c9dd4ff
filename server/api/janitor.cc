// SPDX-License-Identifier: Apache-2.0
#include "server/api/janitor.h"

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {
constexpr int kAtOnce = 100;
}  // namespace

void Janitor::Clean() {
  while (true) {
    std::vector<std::string> garbage;
    absl::Status status = store_.Read([&](Transaction& tx) -> absl::Status {
      BALLAST_ASSIGN_OR_RETURN(garbage, tx.ListGarbage(kAtOnce));
      return absl::OkStatus();
    });
    if (garbage.empty()) return;
    for (const std::string& prefix : garbage) {
      if (status.ok()) status = blobs_.DeletePrefix(prefix);
    }
    if (status.ok()) {
      status = store_.Update([&](Transaction& tx) -> absl::Status {
        for (const std::string& prefix : garbage) {
          BALLAST_RETURN_IF_ERROR(tx.RemoveGarbage(prefix));
        }
        return absl::OkStatus();
      });
    }
    if (!status.ok()) {
      spdlog::warn("deleting old blobs failed, it is tried again: {}", ErrorReason(status));
      return;
    }
  }
}

}  // namespace ballast::server
