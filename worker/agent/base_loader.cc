// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/base_loader.h"

#include <utility>

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::worker::agent {

absl::StatusOr<LoadedBase*> BaseLoader::Load(const ballast::worker::v1::BaseModelFiles& base,
                                             const BaseCache::Fetch& fetch) {
  if (loaded_.has_value() && loaded_->digest == base.digest()) return &*loaded_;
  BALLAST_ASSIGN_OR_RETURN(const std::string folder, cache_.Get(base, fetch));
  loaded_.reset();  // two bases may not fit into memory
  LoadedBase loaded;
  loaded.digest = base.digest();
  BALLAST_ASSIGN_OR_RETURN(loaded.config_json, ReadFile(folder + "/config.json", 1 << 20));
  BALLAST_ASSIGN_OR_RETURN(loaded.text, load_text_(folder));
  BALLAST_ASSIGN_OR_RETURN(loaded.engine, load_engine_(folder));
  loaded.info = loaded.engine->info();
  spdlog::info("{} is loaded: {}, {} parameters, on {} in {}", base.name(),
               loaded.info.architecture, loaded.info.parameters, loaded.info.device,
               loaded.info.precision);
  loaded_ = std::move(loaded);
  return &*loaded_;
}

}  // namespace ballast::worker::agent
