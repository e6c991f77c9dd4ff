// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_BASE_LOADER_H_
#define BALLAST_WORKER_AGENT_BASE_LOADER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/text/tokenizer.h"
#include "worker/agent/base_cache.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// A base model ready for work.
struct LoadedBase {
  std::string digest;
  std::string config_json;
  text::ModelText text;
  std::unique_ptr<Engine> engine;
  EngineInfo info;
};

// Keeps one base model loaded, so that a job on the same base starts without loading it again.
// Thread safety: not thread-safe.
class BaseLoader {
 public:
  using EngineFactory =
      std::function<absl::StatusOr<std::unique_ptr<Engine>>(const std::string& folder)>;
  using TextFactory = std::function<absl::StatusOr<text::ModelText>(const std::string& folder)>;

  // `cache` must outlive the loader.
  BaseLoader(BaseCache& cache, EngineFactory load_engine, TextFactory load_text)
      : cache_(cache), load_engine_(std::move(load_engine)), load_text_(std::move(load_text)) {}

  // The base with `base.digest`, loaded where another one or none is; the other one is released
  // first. Valid until the next call. Errors of BaseCache::Get, of the tokenizer and template, of
  // the engine.
  absl::StatusOr<LoadedBase*> Load(const ballast::worker::v1::BaseModelFiles& base,
                                   const BaseCache::Fetch& fetch);

  // What is loaded, or null.
  LoadedBase* current() { return loaded_.has_value() ? &*loaded_ : nullptr; }

 private:
  BaseCache& cache_;
  const EngineFactory load_engine_;
  const TextFactory load_text_;
  std::optional<LoadedBase> loaded_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_BASE_LOADER_H_
