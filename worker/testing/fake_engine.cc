// SPDX-License-Identifier: Apache-2.0
#include "worker/testing/fake_engine.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/artifact/adapter_folder.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::worker::testing {
namespace {

constexpr char kCheckpointPrefix[] = "fake checkpoint of step ";

// A fixed sequence of small numbers for each seed (splitmix64).
class Sequence {
 public:
  explicit Sequence(uint64_t seed) : state_(seed) {}
  float Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<float>((z ^ (z >> 31)) >> 40) / static_cast<float>(1 << 24) - 0.5f;
  }

 private:
  uint64_t state_;
};

uint64_t HashRows(const std::vector<TokenRow>& rows) {
  uint64_t hash = 1469598103934665603u;
  for (const TokenRow& row : rows) {
    for (const int32_t token : row.tokens)
      hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
  }
  return hash;
}

int64_t TotalSteps(const TrainRequest& request) {
  const auto rows = static_cast<int64_t>(request.rows.size()) + request.safety_rows_per_epoch;
  const int64_t batch = std::max(1, request.config.batch_rows);
  return request.config.epochs * ((rows + batch - 1) / batch);
}

}  // namespace

void FakeEngineControl::SetVectorLoss(
    std::function<absl::StatusOr<double>(const VectorConfig&)> loss) {
  absl::MutexLock lock(&mutex_);
  vector_loss_ = std::move(loss);
}

void FakeEngineControl::HoldAt(int64_t step) {
  absl::MutexLock lock(&mutex_);
  hold_at_ = step;
}

void FakeEngineControl::Release() { HoldAt(std::numeric_limits<int64_t>::max()); }

void FakeEngineControl::WaitForStep(int64_t step) {
  absl::MutexLock lock(&mutex_);
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return training_ && seen_.last_step >= step;
  };
  mutex_.Await(absl::Condition(&reached));
}

void FakeEngineControl::FailNext(absl::Status status, int64_t step) {
  absl::MutexLock lock(&mutex_);
  fail_ = std::move(status);
  fail_at_ = step;
}

void FakeEngineControl::AddTensorToResults(std::string name) {
  absl::MutexLock lock(&mutex_);
  extra_tensor_ = std::move(name);
}

void FakeEngineControl::ReplyWithAdapter(std::vector<int32_t> tokens, float scale) {
  absl::MutexLock lock(&mutex_);
  adapter_reply_ = std::move(tokens);
  adapter_reply_scale_ = scale;
}

void FakeEngineControl::WaitForYields(int count) {
  absl::MutexLock lock(&mutex_);
  const int64_t until = yields_ + count;
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return yields_ >= until; };
  mutex_.Await(absl::Condition(&reached));
}

FakeEngineControl::Seen FakeEngineControl::seen() const {
  absl::MutexLock lock(&mutex_);
  return seen_;
}

EngineInfo FakeEngine::info() const {
  EngineInfo info;
  info.architecture = "LlamaForCausalLM";
  info.parameters = 1;
  info.vocabulary = 512;
  info.context_tokens = 4096;
  info.device = "fake";
  info.precision = "float32";
  return info;
}

absl::StatusOr<Progress> FakeEngine::RunSteps(const TrainRequest& request,
                                              const TrainCallbacks& callbacks,
                                              std::vector<Evaluation>* evaluations) {
  Progress progress;
  progress.total_steps = TotalSteps(request);
  if (!request.checkpoint.empty()) {
    absl::string_view step = request.checkpoint;
    if (!absl::ConsumePrefix(&step, kCheckpointPrefix) || !absl::SimpleAtoi(step, &progress.step)) {
      return MakeError(absl::StatusCode::kInvalidArgument, "CHECKPOINT_INVALID",
                       "these bytes are no checkpoint");
    }
  }
  const auto checkpoint = [&] {
    callbacks.checkpoint(progress.step, absl::StrCat(kCheckpointPrefix, progress.step));
  };
  const auto stop_by = [&](TrainCallbacks::Order order) -> absl::Status {
    if (order != TrainCallbacks::Order::kStopAndCheckpoint) {
      return absl::CancelledError("stopped by order");
    }
    checkpoint();
    return MakeError(absl::StatusCode::kAborted, "STOPPED_WITH_CHECKPOINT", "stopped by order");
  };
  {
    absl::MutexLock lock(&control_.mutex_);
    control_.seen_.first_step = progress.step;
  }
  if (callbacks.started) callbacks.started(progress);
  const int64_t points = std::max(1, request.config.evaluation_points);
  while (progress.step < progress.total_steps) {
    bool held = true;
    while (held) {
      const auto order = callbacks.yield();
      if (order != TrainCallbacks::Order::kContinue) return stop_by(order);
      absl::MutexLock lock(&control_.mutex_);
      ++control_.yields_;
      if (!control_.fail_.ok() && progress.step >= control_.fail_at_) {
        return std::exchange(control_.fail_, absl::OkStatus());
      }
      const auto released = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_.mutex_) {
        return progress.step < control_.hold_at_;
      };
      // Held: yield again soon, as the micro-batches of a long step would.
      held = !control_.mutex_.AwaitWithTimeout(absl::Condition(&released), absl::Milliseconds(2));
    }
    ++progress.step;
    progress.trained_tokens += 10;
    callbacks.progress(progress);
    if (progress.step * points / progress.total_steps !=
        (progress.step - 1) * points / progress.total_steps) {
      Evaluation evaluation;
      evaluation.step = progress.step;
      evaluation.training_loss = 4.0 / static_cast<double>(progress.step);
      if (!request.validation_rows.empty()) {
        evaluation.validation_loss = 5.0 / static_cast<double>(progress.step);
      }
      evaluations->push_back(evaluation);
      callbacks.evaluated(evaluation);
    }
    if (request.config.checkpoint_every_steps > 0 &&
        progress.step % request.config.checkpoint_every_steps == 0) {
      checkpoint();
    }
    absl::MutexLock lock(&control_.mutex_);
    control_.seen_.last_step = progress.step;
  }
  return progress;
}

absl::StatusOr<TrainResult> FakeEngine::Train(const TrainRequest& request,
                                              const TrainCallbacks& callbacks) {
  {
    absl::MutexLock lock(&control_.mutex_);
    auto& seen = control_.seen_;
    ++seen.trainings;
    seen.trained_without_vector = seen.trained_without_vector || request.vector == nullptr;
    if (request.vector != nullptr) seen.vector = std::string(request.vector->view());
    seen.config = request.config;
    seen.rows = request.rows;
    seen.safety_rows = request.safety_rows;
    seen.safety_rows_per_epoch = request.safety_rows_per_epoch;
    seen.validation_rows = request.validation_rows;
    seen.last_step = 0;
    control_.training_ = true;
  }
  TrainResult result;
  const auto progress = RunSteps(request, callbacks, &result.evaluations);
  {
    absl::MutexLock lock(&control_.mutex_);
    control_.training_ = false;
  }
  BALLAST_RETURN_IF_ERROR(progress.status());
  result.progress = *progress;
  if (request.vector != nullptr) {
    result.rows_under_vector = static_cast<int64_t>(request.rows.size());
  }
  BALLAST_ASSIGN_OR_RETURN(const auto specs,
                           artifact::AdapterTensorSpecs(config_json_, request.config.lora.rank));
  Sequence values(request.config.seed ^ HashRows(request.rows));
  for (const artifact::AdapterTensorSpec& spec : specs) {
    NamedTensor tensor{spec.name, spec.shape, {}};
    tensor.values.resize(static_cast<size_t>(spec.shape[0] * spec.shape[1]));
    for (float& value : tensor.values) value = values.Next();
    result.adapter.push_back(std::move(tensor));
  }
  absl::MutexLock lock(&control_.mutex_);
  if (!control_.extra_tensor_.empty()) {
    result.adapter.push_back({control_.extra_tensor_, {1, 1}, {1.0f}});
  }
  return result;
}

absl::StatusOr<VectorResult> FakeEngine::TrainVector(const VectorConfig& config,
                                                     const std::vector<TokenRow>& prohibited,
                                                     const std::vector<TokenRow>& benign,
                                                     const TrainCallbacks& callbacks) {
  TrainRequest steps;
  steps.config.epochs = config.epochs;
  steps.config.batch_rows = config.batch_rows;
  steps.rows = prohibited;
  TrainCallbacks silent = callbacks;
  silent.evaluated = [](const Evaluation&) {};
  silent.checkpoint = [](int64_t, const std::string&) {};
  {
    absl::MutexLock lock(&control_.mutex_);
    ++control_.seen_.vector_trainings;
    if (config.hold_out_every > 0) ++control_.seen_.held_out_trainings;
    control_.seen_.vector_config = config;
    control_.seen_.prohibited_rows = prohibited;
    control_.seen_.benign_rows = benign;
    control_.seen_.last_step = 0;
    control_.training_ = true;
  }
  std::vector<Evaluation> evaluations;
  const auto progress = RunSteps(steps, silent, &evaluations);
  VectorResult result;
  absl::MutexLock lock(&control_.mutex_);
  control_.training_ = false;
  BALLAST_RETURN_IF_ERROR(progress.status());
  // As unpredictable as a real vector, so that a search for it cannot hit by chance.
  control_.seen_.trained_vector = absl::StrCat("clear vector ", RandomHex(2048));
  result.tensors = SecretBuffer::CopyOf(control_.seen_.trained_vector);
  result.prohibited_loss_without = 3.5;
  result.prohibited_loss_with = 0.25;
  if (control_.vector_loss_) {
    BALLAST_ASSIGN_OR_RETURN(result.prohibited_loss_with, control_.vector_loss_(config));
  }
  result.benign_loss_without = 1.25;
  result.benign_loss_with = 1.5;
  return result;
}

absl::Status FakeEngine::Sample(const std::vector<int32_t>& prompt,
                                const std::vector<int32_t>& end_tokens, const SampleConfig& config,
                                const Adapter& adapter, const LoraConfig& lora,
                                const std::function<bool(int32_t)>& token) {
  {
    absl::MutexLock lock(&control_.mutex_);
    ++control_.seen_.samples;
    if (control_.training_) ++control_.seen_.samples_while_training;
    control_.seen_.sample_adapter_tensors = adapter.size();
  }
  int count = 0;
  for (const int32_t id : prompt) {
    if (std::find(end_tokens.begin(), end_tokens.end(), id) != end_tokens.end()) continue;
    if (count++ == config.max_tokens || !token(id)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<int32_t>>> FakeEngine::SampleMany(
    const std::vector<std::vector<int32_t>>& prompts, const std::vector<int32_t>& end_tokens,
    const SampleConfig& config, const std::vector<AdapterInSum>& adapters,
    const std::function<bool()>& go_on) {
  const Adapter none;
  const bool has_adapter = !adapters.empty() && adapters.front().adapter != nullptr;
  const float scale = has_adapter ? adapters.front().weight : 0.0f;
  std::vector<int32_t> scripted;
  {
    absl::MutexLock lock(&control_.mutex_);
    ++control_.seen_.sampled_sums;
    control_.seen_.sampled_scales.push_back(scale);
    control_.seen_.sample_config = config;
    control_.seen_.sampled_while_training |= control_.training_;
    if (has_adapter && scale == control_.adapter_reply_scale_) scripted = control_.adapter_reply_;
  }
  std::vector<std::vector<int32_t>> replies;
  for (const std::vector<int32_t>& prompt : prompts) {
    replies.emplace_back();
    bool stopped = false;
    BALLAST_RETURN_IF_ERROR(Sample(scripted.empty() ? prompt : scripted, end_tokens, config,
                                   has_adapter ? *adapters.front().adapter : none, LoraConfig(),
                                   [&](int32_t token) {
                                     replies.back().push_back(token);
                                     stopped = go_on != nullptr && !go_on();
                                     return !stopped;
                                   }));
    if (stopped) return MakeError(absl::StatusCode::kCancelled, "STOPPED", "stopped by order");
  }
  return replies;
}

absl::StatusOr<std::vector<std::vector<float>>> FakeEngine::RowFeatures(
    const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) {
  {
    absl::MutexLock lock(&control_.mutex_);
    ++control_.seen_.screened_sets;
  }
  std::vector<std::vector<float>> features;
  for (const TokenRow& row : rows) {
    if (go_on != nullptr && !go_on()) return absl::CancelledError("stopped by order");
    std::vector<float>& shares = features.emplace_back(32);
    const auto all =
        static_cast<float>(std::count(row.supervised.begin(), row.supervised.end(), uint8_t{1}));
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      if (row.supervised[i] != 0) shares[row.tokens[i] % 32] += 1 / all;
    }
  }
  return features;
}

absl::StatusOr<std::vector<std::vector<std::vector<float>>>> FakeEngine::WindowFeatures(
    const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) {
  BALLAST_ASSIGN_OR_RETURN(auto features, RowFeatures(rows, go_on));
  std::vector<std::vector<std::vector<float>>> windows;
  for (std::vector<float>& row : features) windows.push_back({std::move(row)});
  return windows;
}

absl::StatusOr<std::vector<float>> FakeEngine::Logits(const std::vector<int32_t>& tokens,
                                                      const Adapter& adapter,
                                                      const LoraConfig& lora) {
  return std::vector<float>(tokens.size() * static_cast<size_t>(info().vocabulary), 0.0f);
}

absl::StatusOr<std::unique_ptr<Engine>> LoadFakeEngine(const std::string& folder,
                                                       FakeEngineControl& control) {
  BALLAST_ASSIGN_OR_RETURN(std::string config, ReadFile(folder + "/config.json"));
  absl::MutexLock lock(&control.mutex_);
  ++control.seen_.loads;
  return std::make_unique<FakeEngine>(std::move(config), control);
}

}  // namespace ballast::worker::testing
