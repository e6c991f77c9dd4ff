// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <string>

#include "common/base/error.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace ballast {

absl::Status InitLog(std::string_view program, std::string_view level) {
  if (level.empty()) level = "info";
  // spdlog would take any other word for "off".
  if (level != "debug" && level != "info" && level != "warn" && level != "error") {
    return FieldError("log_level", "CONFIG_INVALID",
                      "log_level must be \"debug\", \"info\", \"warn\" or \"error\"");
  }
  auto logger = spdlog::stderr_logger_mt(std::string(program));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %n: %v", spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

}  // namespace ballast
