// SPDX-License-Identifier: Apache-2.0
// Log lines of the engine. A target of its own: torch's headers carry another version of fmt than
// the spdlog of the system was built with, and the two cannot meet in one file.
#ifndef BALLAST_WORKER_TRAIN_ENGINE_LOG_H_
#define BALLAST_WORKER_TRAIN_ENGINE_LOG_H_

#include <string_view>

namespace ballast::worker {

void LogEngineWarning(std::string_view message);
void LogEngineError(std::string_view message);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_ENGINE_LOG_H_
