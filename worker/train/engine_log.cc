// SPDX-License-Identifier: Apache-2.0
#include "worker/train/engine_log.h"

#include "common/base/log.h"

namespace ballast::worker {

void LogEngineWarning(std::string_view message) { spdlog::warn("engine: {}", message); }

void LogEngineError(std::string_view message) { spdlog::error("engine: {}", message); }

}  // namespace ballast::worker
