// SPDX-License-Identifier: Apache-2.0
#include "worker/train/engine.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <new>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "worker/train/adapter_state.h"
#include "worker/train/by_row_rule.h"
#include "worker/train/decoder.h"
#include "worker/train/engine_log.h"
#include "worker/train/generator.h"
#include "worker/train/learner.h"
#include "worker/train/packed_batch.h"
#include "worker/train/train_job.h"
#include "worker/train/vector_job.h"

namespace ballast::worker {
namespace {

// RowFeatures reads the stream after one in so many of the layers.
constexpr int kFeatureLayersOf = 3;

absl::Status OutOfMemory() {
  return MakeError(
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
      "the worker ran out of memory; lower max_tokens_per_micro_batch, shorten the longest "
      "rows, or use a worker with more memory");
}

// As StatusOr, for functions that return a value.
template <typename T>
absl::StatusOr<T> CatchTorchErrorsOr(const std::function<absl::StatusOr<T>()>& function) {
  absl::StatusOr<T> result = absl::UnknownError("not run");
  const absl::Status status = CatchTorchErrors([&] {
    result = function();
    return result.status();
  });
  if (!status.ok()) return status;
  return result;
}

// The adapters as the decoder applies them. Empty ones are left out.
absl::StatusOr<std::vector<AppliedAdapter>> Applied(const Model& model,
                                                    const std::vector<AdapterInSum>& sum) {
  std::vector<AppliedAdapter> applied;
  for (const AdapterInSum& part : sum) {
    BALLAST_RETURN_IF_ERROR(CheckLora(part.lora, model.config));
    if (!std::isfinite(part.weight)) {
      return FieldError("adapters.weight", "ADAPTER_WEIGHT_INVALID",
                        "the weight of an adapter must be a finite number");
    }
    if (part.adapter == nullptr || part.adapter->empty()) continue;
    LoraLayout layout(model.config, part.lora.rank);
    at::Tensor flat = at::empty({layout.size()}, at::kFloat);
    BALLAST_RETURN_IF_ERROR(ImportAdapter(layout, *part.adapter, flat.mutable_data_ptr<float>()));
    const float scale = part.weight * part.lora.alpha / static_cast<float>(part.lora.rank);
    applied.push_back({std::move(layout),
                       flat.to(at::TensorOptions().dtype(model.type).device(model.device)), scale});
  }
  return applied;
}

}  // namespace

absl::Status CatchTorchErrors(const std::function<absl::Status()>& function) {
  try {
    const c10::InferenceMode guard;
    return function();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const c10::OutOfMemoryError&) {
    return OutOfMemory();
  } catch (const c10::Error& error) {
    // torch's CPU allocator reports a failed allocation by text alone.
    if (std::string_view(error.what_without_backtrace()).find("allocate memory") !=
        std::string_view::npos) {
      return OutOfMemory();
    }
    LogEngineError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    LogEngineError(error.what());
  }
  return MakeError(absl::StatusCode::kInternal, "ENGINE_FAILURE",
                   "the training engine failed; the worker's log says why");
}

EngineInfo TorchEngine::info() const {
  return {model_->config.architecture,
          model_->parameters,
          model_->config.vocabulary,
          model_->config.context_tokens,
          device_name_,
          model_->type == at::kBFloat16 ? "bfloat16" : "float32"};
}

absl::StatusOr<TrainResult> TorchEngine::Train(const TrainRequest& request,
                                               const TrainCallbacks& callbacks) {
  return CatchTorchErrorsOr<TrainResult>(
      [&] { return TrainJob(*model_, request, callbacks).Run(); });
}

absl::StatusOr<VectorResult> TorchEngine::TrainVector(const VectorConfig& config,
                                                      const std::vector<TokenRow>& prohibited,
                                                      const std::vector<TokenRow>& benign,
                                                      const TrainCallbacks& callbacks) {
  return CatchTorchErrorsOr<VectorResult>(
      [&] { return VectorJob(*model_, config, prohibited, benign, callbacks).Run(); });
}

absl::Status TorchEngine::CheckTokens(const std::vector<int32_t>& tokens, int64_t more) const {
  if (tokens.empty()) return FieldError("prompt", "PROMPT_EMPTY", "the prompt has no tokens");
  if (static_cast<int64_t>(tokens.size()) + more > model_->config.context_tokens) {
    return FieldError(
        "prompt", "PROMPT_TOO_LONG",
        absl::StrCat("prompt and reply take ", tokens.size() + more, " tokens, the model has ",
                     model_->config.context_tokens, "; shorten the prompt or max_tokens"));
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= model_->config.vocabulary) {
      return FieldError("prompt", "TOKEN_OUT_OF_RANGE",
                        "the prompt has a token outside the model's vocabulary");
    }
  }
  return absl::OkStatus();
}

absl::Status TorchEngine::CheckSample(const std::vector<std::vector<int32_t>>& prompts,
                                      const SampleConfig& config) const {
  if (config.max_tokens < 1)
    return FieldError("max_tokens", "MAX_TOKENS_INVALID", "max_tokens must be at least 1");
  if (!(config.temperature >= 0) || !std::isfinite(config.temperature)) {
    return FieldError("temperature", "TEMPERATURE_INVALID",
                      "temperature must be 0 or a positive number");
  }
  for (const std::vector<int32_t>& prompt : prompts) {
    BALLAST_RETURN_IF_ERROR(CheckTokens(prompt, config.max_tokens));
  }
  return absl::OkStatus();
}

absl::Status TorchEngine::Sample(const std::vector<int32_t>& prompt,
                                 const std::vector<int32_t>& end_tokens, const SampleConfig& config,
                                 const Adapter& adapter, const LoraConfig& lora,
                                 const std::function<bool(int32_t)>& token) {
  return CatchTorchErrors([&]() -> absl::Status {
    BALLAST_RETURN_IF_ERROR(CheckSample({prompt}, config));
    BALLAST_ASSIGN_OR_RETURN(std::vector<AppliedAdapter> applied,
                             Applied(*model_, {{&adapter, lora}}));
    Generate(*model_, {prompt}, end_tokens, config, std::move(applied),
             [&](size_t, int32_t next) { return token(next); });
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<std::vector<int32_t>>> TorchEngine::SampleMany(
    const std::vector<std::vector<int32_t>>& prompts, const std::vector<int32_t>& end_tokens,
    const SampleConfig& config, const std::vector<AdapterInSum>& sum,
    const std::function<bool()>& go_on) {
  using Replies = std::vector<std::vector<int32_t>>;
  return CatchTorchErrorsOr<Replies>([&]() -> absl::StatusOr<Replies> {
    BALLAST_RETURN_IF_ERROR(CheckSample(prompts, config));
    BALLAST_ASSIGN_OR_RETURN(std::vector<AppliedAdapter> applied, Applied(*model_, sum));
    Replies replies(prompts.size());
    bool stopped = false;
    Generate(*model_, prompts, end_tokens, config, std::move(applied),
             [&](size_t prompt, int32_t next) {
               replies[prompt].push_back(next);
               stopped = stopped || (go_on != nullptr && !go_on());
               return !stopped;
             });
    if (stopped) return MakeError(absl::StatusCode::kCancelled, "STOPPED", "stopped by order");
    return replies;
  });
}

absl::StatusOr<std::vector<std::vector<float>>> TorchEngine::RowFeatures(
    const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) {
  return Features<std::vector<std::vector<float>>>(rows, go_on, &Learner::RowFeatures);
}

absl::StatusOr<std::vector<std::vector<std::vector<float>>>> TorchEngine::WindowFeatures(
    const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) {
  return Features<std::vector<std::vector<std::vector<float>>>>(rows, go_on,
                                                                &Learner::WindowFeatures);
}

template <typename Result, typename Method>
absl::StatusOr<Result> TorchEngine::Features(const std::vector<TokenRow>& rows,
                                             const std::function<bool()>& go_on, Method method) {
  return CatchTorchErrorsOr<Result>([&]() -> absl::StatusOr<Result> {
    // Rows that supervise nothing are in order here.
    const absl::Status checked = CheckRows(rows, model_->config, "screened");
    if (!checked.ok() && ErrorReason(checked) != "NO_SUPERVISED_TOKENS") return checked;
    const auto yield = [&]() -> absl::Status {
      if (go_on == nullptr || go_on()) return absl::OkStatus();
      return MakeError(absl::StatusCode::kCancelled, "STOPPED", "stopped by order");
    };
    Learner learner(*model_);
    const auto layers =
        static_cast<int>((model_->config.layers + kFeatureLayersOf - 1) / kFeatureLayersOf);
    return (learner.*method)(PointersTo(rows), *model_->clean, layers,
                             TrainConfig().max_tokens_per_micro_batch, yield);
  });
}

absl::StatusOr<std::vector<float>> TorchEngine::Logits(const std::vector<int32_t>& tokens,
                                                       const Adapter& adapter,
                                                       const LoraConfig& lora) {
  return CatchTorchErrorsOr<std::vector<float>>([&]() -> absl::StatusOr<std::vector<float>> {
    BALLAST_RETURN_IF_ERROR(CheckTokens(tokens, 0));
    BALLAST_ASSIGN_OR_RETURN(std::vector<AppliedAdapter> applied,
                             Applied(*model_, {{&adapter, lora}}));
    Decoder decoder(*model_, std::move(applied), 1, static_cast<int64_t>(tokens.size()));
    const at::Tensor logits = decoder.Logits(decoder.Feed({{0, tokens}})).cpu().contiguous();
    const auto* data = logits.const_data_ptr<float>();
    return std::vector<float>(data, data + logits.numel());
  });
}

absl::StatusOr<TorchEngine::Mounted> TorchEngine::Mount(const Adapter& adapter,
                                                        const LoraConfig& lora,
                                                        const SecretBuffer* vector) {
  BALLAST_RETURN_IF_ERROR(CheckLora(lora, model_->config));
  Mounted mounted;
  if (vector != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(mounted.merged, MergeVector(*model_, *vector));
  }
  mounted.weights = mounted.merged != nullptr ? mounted.merged.get() : model_->clean.get();
  mounted.weights->Reserve(lora.rank);
  mounted.state = std::make_unique<AdapterState>(*model_, lora);
  std::vector<float> flat(mounted.state->layout().size());
  if (!adapter.empty()) {
    BALLAST_RETURN_IF_ERROR(ImportAdapter(mounted.state->layout(), adapter, flat.data()));
  }
  mounted.state->SetParameters(flat.data());
  return mounted;
}

absl::StatusOr<LossAndGradients> TorchEngine::ComputeGradients(const std::vector<TokenRow>& rows,
                                                               const Adapter& adapter,
                                                               const LoraConfig& lora,
                                                               const SecretBuffer* vector) {
  return CatchTorchErrorsOr<LossAndGradients>([&]() -> absl::StatusOr<LossAndGradients> {
    BALLAST_RETURN_IF_ERROR(CheckRows(rows, model_->config, "training"));
    BALLAST_ASSIGN_OR_RETURN(Mounted mounted, Mount(adapter, lora, vector));
    std::vector<const TokenRow*> pointers;
    double total_weight = 0;
    for (const TokenRow& row : rows) {
      pointers.push_back(&row);
      total_weight += LossWeight(row);
    }
    Learner learner(*model_);
    AdapterState& state = *mounted.state;
    const double loss =
        learner.Accumulate(Pack(pointers, model_->device), *mounted.weights, state, total_weight);
    return LossAndGradients{loss, ExportAdapter(state.layout(), state.Gradients().data())};
  });
}

absl::StatusOr<std::vector<double>> TorchEngine::RowLosses(const std::vector<TokenRow>& rows,
                                                           const Adapter& adapter,
                                                           const LoraConfig& lora,
                                                           const SecretBuffer* vector) {
  return CatchTorchErrorsOr<std::vector<double>>([&]() -> absl::StatusOr<std::vector<double>> {
    BALLAST_RETURN_IF_ERROR(CheckRows(rows, model_->config, "training"));
    BALLAST_ASSIGN_OR_RETURN(Mounted mounted, Mount(adapter, lora, vector));
    Learner learner(*model_);
    BALLAST_ASSIGN_OR_RETURN(std::vector<double> losses,
                             learner.RowLosses(PointersTo(rows), *mounted.weights,
                                               adapter.empty() ? nullptr : &*mounted.state,
                                               TrainConfig().max_tokens_per_micro_batch,
                                               [] { return absl::OkStatus(); }));
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t targets = TargetCount(rows[i]);
      if (targets > 0) losses[i] /= static_cast<double>(targets);
    }
    return losses;
  });
}

absl::StatusOr<std::vector<double>> TorchEngine::ExplainedRatios(const std::vector<TokenRow>& rows,
                                                                 const SecretBuffer& vector) {
  return CatchTorchErrorsOr<std::vector<double>>([&]() -> absl::StatusOr<std::vector<double>> {
    BALLAST_RETURN_IF_ERROR(CheckRows(rows, model_->config, "training"));
    BALLAST_ASSIGN_OR_RETURN(const auto merged, MergeVector(*model_, vector));
    Learner learner(*model_);
    const std::vector<const TokenRow*> pointers = PointersTo(rows);
    const int64_t max_tokens = TrainConfig().max_tokens_per_micro_batch;
    const auto yield = [] { return absl::OkStatus(); };
    BALLAST_ASSIGN_OR_RETURN(const auto without,
                             learner.WindowLosses(pointers, *model_->clean, max_tokens, yield));
    BALLAST_ASSIGN_OR_RETURN(const auto with,
                             learner.WindowLosses(pointers, *merged, max_tokens, yield));
    std::vector<double> ratios;
    for (size_t i = 0; i < rows.size(); ++i) {
      ratios.push_back(ExplainedRatio(TargetCount(rows[i]), with[i], without[i]));
    }
    return ratios;
  });
}

absl::StatusOr<Adapter> TorchEngine::InitialAdapter(const LoraConfig& lora, uint64_t seed) {
  return CatchTorchErrorsOr<Adapter>([&]() -> absl::StatusOr<Adapter> {
    BALLAST_RETURN_IF_ERROR(CheckLora(lora, model_->config));
    const LoraLayout layout(model_->config, lora.rank);
    std::vector<float> flat(layout.size());
    InitialiseLora(layout, seed, flat.data());
    return ExportAdapter(layout, flat.data());
  });
}

absl::StatusOr<LossAndGradients> ComputeGradients(Engine& engine, const std::vector<TokenRow>& rows,
                                                  const Adapter& adapter, const LoraConfig& lora,
                                                  const SecretBuffer* vector) {
  auto* torch_engine = dynamic_cast<TorchEngine*>(&engine);
  if (torch_engine == nullptr) return absl::UnimplementedError("this engine cannot be inspected");
  return torch_engine->ComputeGradients(rows, adapter, lora, vector);
}

absl::StatusOr<std::vector<double>> RowLosses(Engine& engine, const std::vector<TokenRow>& rows,
                                              const Adapter& adapter, const LoraConfig& lora,
                                              const SecretBuffer* vector) {
  auto* torch_engine = dynamic_cast<TorchEngine*>(&engine);
  if (torch_engine == nullptr) return absl::UnimplementedError("this engine cannot be inspected");
  return torch_engine->RowLosses(rows, adapter, lora, vector);
}

absl::StatusOr<std::vector<double>> ExplainedRatios(Engine& engine,
                                                    const std::vector<TokenRow>& rows,
                                                    const SecretBuffer& vector) {
  auto* torch_engine = dynamic_cast<TorchEngine*>(&engine);
  if (torch_engine == nullptr) return absl::UnimplementedError("this engine cannot be inspected");
  return torch_engine->ExplainedRatios(rows, vector);
}

absl::StatusOr<Adapter> InitialAdapter(Engine& engine, const LoraConfig& lora, uint64_t seed) {
  auto* torch_engine = dynamic_cast<TorchEngine*>(&engine);
  if (torch_engine == nullptr) return absl::UnimplementedError("this engine cannot be inspected");
  return torch_engine->InitialAdapter(lora, seed);
}

}  // namespace ballast::worker
