// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/delta_files.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/artifact/adapter_folder.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/status_macros.h"
#include "common/dataset/packing.h"
#include "nlohmann/json.hpp"

namespace ballast::worker::agent {
namespace {

using ballast::v1::Hyperparameters;
using ballast::v1::ScreeningReport;
using ballast::worker::v1::Work;

const char* ScheduleName(Hyperparameters::Schedule schedule) {
  return schedule == Hyperparameters::LINEAR ? "linear" : "cosine";
}

artifact::ModelCard MakeCard(const Work& work, const LoadedBase& base, const TrainResult& result,
                             const artifact::AdapterConfig& adapter, int64_t rows_left_out,
                             const std::string& code_version) {
  const ballast::v1::FineTuningJob& job = work.fine_tune().job();
  const Hyperparameters& hyperparameters = job.hyperparameters();
  artifact::ModelCard card;
  card.job = job.name();
  card.display_name = job.display_name();
  card.base_model_name = adapter.base_model_name;
  card.base_digest = base.digest;
  card.training_dataset_digest = work.fine_tune().training_dataset_digest();
  card.adapter = adapter;
  card.learning_rate = hyperparameters.learning_rate();
  card.epochs = hyperparameters.epochs();
  card.batch_rows = hyperparameters.batch_rows();
  card.schedule = ScheduleName(hyperparameters.schedule());
  card.warmup_ratio = hyperparameters.warmup_ratio();
  card.seed = hyperparameters.seed();
  card.steps = result.progress.total_steps;
  card.trained_tokens = result.progress.trained_tokens;
  card.code_version = code_version;
  card.rows_left_out = rows_left_out;
  card.safety_rows =
      dataset::SafetyRowCount(work.fine_tune().training_dataset().rows_accepted() - rows_left_out,
                              work.fine_tune().safety_rows().share());
  card.unprotected = work.fine_tune().unprotected();
  card.certified = work.fine_tune().has_certificate();
  for (const Evaluation& evaluation : result.evaluations) {
    card.evaluations.push_back(
        {evaluation.step, evaluation.training_loss, evaluation.validation_loss});
  }
  return card;
}

}  // namespace

std::string ConfigDigest(const Hyperparameters& hyperparameters) {
  const nlohmann::json json = {
      {"batch_rows", hyperparameters.batch_rows()},
      {"epochs", hyperparameters.epochs()},
      {"learning_rate", hyperparameters.learning_rate()},
      {"lora_alpha", hyperparameters.lora_alpha()},
      {"lora_rank", hyperparameters.lora_rank()},
      {"schedule", ScheduleName(hyperparameters.schedule())},
      {"seed", hyperparameters.seed()},
      {"warmup_ratio", hyperparameters.warmup_ratio()},
  };
  return DigestOf(json.dump());
}

absl::StatusOr<std::vector<DeltaFile>> BuildDeltaFiles(const Work& work, const LoadedBase& base,
                                                       const TrainResult& result,
                                                       const ScreeningReport& screening,
                                                       const std::string& gate,
                                                       const std::string& code_version,
                                                       absl::Time now) {
  const Work::FineTune& task = work.fine_tune();
  const ballast::v1::FineTuningJob& job = task.job();
  const int64_t rows_left_out =
      screening.action() == ScreeningReport::LEFT_OUT ? screening.flagged_rows() : 0;
  artifact::AdapterConfig adapter;
  adapter.rank = job.hyperparameters().lora_rank();
  adapter.alpha = job.hyperparameters().lora_alpha();
  adapter.base_model_name =
      std::string(absl::StripPrefix(absl::string_view(work.base_model().name()), "baseModels/"));

  BALLAST_ASSIGN_OR_RETURN(const auto allowed,
                           artifact::AdapterTensorSpecs(base.config_json, adapter.rank));
  std::vector<artifact::AdapterTensorView> tensors;
  for (const NamedTensor& tensor : result.adapter) {
    tensors.push_back({tensor.name, &tensor.shape, &tensor.values});
  }
  std::vector<DeltaFile> files;
  files.push_back({"adapter/adapter_config.json", artifact::WriteAdapterConfig(adapter)});
  BALLAST_ASSIGN_OR_RETURN(std::string model, artifact::WriteAdapterModel(allowed, tensors));
  files.push_back({"adapter/adapter_model.safetensors", std::move(model)});
  files.push_back({"README.md", artifact::WriteModelCard(MakeCard(work, base, result, adapter,
                                                                  rows_left_out, code_version))});

  artifact::Manifest manifest;
  for (const DeltaFile& file : files) {
    manifest.files.push_back(
        {file.path, static_cast<int64_t>(file.bytes.size()), DigestOf(file.bytes)});
  }
  manifest.job = job.name();
  manifest.attempt = job.attempt();
  manifest.base_model = work.base_model().name();
  manifest.base_digest = base.digest;
  manifest.training_dataset_digest = task.training_dataset_digest();
  if (task.has_validation_dataset()) {
    manifest.validation_dataset_digest = task.validation_dataset().digest();
  }
  manifest.config_digest = ConfigDigest(job.hyperparameters());
  manifest.tokenizer_digest = base.text.tokenizer_digest;
  manifest.template_digest = base.text.template_digest;
  manifest.code_version = code_version;
  manifest.create_time = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", now, absl::UTCTimeZone());
  manifest.unprotected = task.unprotected();
  manifest.protection_handle = task.protection_handle();
  manifest.certified = task.has_certificate();  // checked before the training
  if (task.has_safety_rows()) {
    manifest.safety_rows_digest = task.safety_rows().rows().digest();
    manifest.safety_row_share = task.safety_rows().share();
  }
  if (task.has_screen()) {
    manifest.screen_digest = task.screen().digest();
    manifest.screen_rows_left_out = rows_left_out;
  }
  manifest.gate = gate;
  BALLAST_ASSIGN_OR_RETURN(std::string manifest_json, artifact::WriteManifest(std::move(manifest)));
  files.push_back({artifact::kManifestName, std::move(manifest_json)});
  return files;
}

}  // namespace ballast::worker::agent
