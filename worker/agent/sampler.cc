// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/sampler.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/adapter_folder.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/agent/status_text.h"
#include "worker/agent/token_stream.h"

namespace ballast::worker::agent {
namespace {

constexpr int kDefaultMaxTokens = 128;
constexpr int kMostTokens = 1024;
constexpr int64_t kMaxAdapterBytes = int64_t{8} << 30;

absl::Status Stopping() {
  return MakeError(absl::StatusCode::kUnavailable, "WORKER_STOPPING",
                   "the worker is stopping; ask again");
}

ballast::v1::JobError ToSampleError(const absl::Status& status) {
  ballast::v1::JobError error;
  const std::string reason = ErrorReason(status);
  // Only failures that are the asker's and that were made here say more than their kind.
  if (absl::IsInvalidArgument(status) && (reason == "PROMPT_TOO_LONG" || reason == "PROMPT_EMPTY" ||
                                          absl::StartsWith(reason, "TEMPLATE_"))) {
    error.set_kind(ballast::v1::JobError::USER);
    error.set_reason(reason);
    error.set_message(std::string(status.message()));
    return error;
  }
  error.set_kind(ballast::v1::JobError::PLATFORM);
  const bool known = reason == "WORKER_STOPPING" || reason == "SAMPLE_BASE_BUSY";
  error.set_reason(known ? reason : "SAMPLE_FAILED");
  error.set_message(known ? std::string(status.message())
                          : "the worker could not reply; ask again");
  return error;
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const ballast::v1::SampleRequest& request,
                                                  const LoadedBase& base, int64_t max_tokens) {
  std::vector<text::ChatMessage> messages;
  for (const auto& message : request.messages()) {
    messages.push_back({message.role(), message.content()});
  }
  BALLAST_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text::EncodePrompt(base.text, messages));
  if (tokens.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "PROMPT_EMPTY",
                     "the prompt has no tokens");
  }
  const auto size = static_cast<int64_t>(tokens.size());
  if (size + max_tokens > base.info.context_tokens) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG",
        absl::StrCat("the prompt has ", size, " tokens; with ", max_tokens,
                     " to reply it is longer than the model's ", base.info.context_tokens));
  }
  return tokens;
}

}  // namespace

void Sampler::Add(const pb::SampleOrder& order) {
  absl::MutexLock lock(&mutex_);
  orders_.push_back(order);
}

std::optional<pb::SampleOrder> Sampler::Next() {
  absl::MutexLock lock(&mutex_);
  if (orders_.empty()) return std::nullopt;
  pb::SampleOrder order = std::move(orders_.front());
  orders_.pop_front();
  return order;
}

void Sampler::ServeWith(LoadedBase& base, const std::function<bool()>& stop,
                        Cancellation& interrupt) {
  while (const auto order = Next()) {
    if (order->base_model().digest() == base.digest) {
      Serve(*order, base, stop, interrupt);
    } else {
      Refuse(*order, MakeError(absl::StatusCode::kUnavailable, "SAMPLE_BASE_BUSY",
                               "the worker is training on another base model; ask again later"));
    }
  }
}

void Sampler::ServeIdle(
    const std::function<absl::StatusOr<LoadedBase*>(const pb::SampleOrder&, BlobReader)>& load,
    const std::function<bool()>& stop, Cancellation& interrupt) {
  while (const auto order = Next()) {
    if (stop()) {
      Refuse(*order, Stopping());
      continue;
    }
    const auto base = load(*order, BlobReader{{}, order->sample_id()});
    if (base.ok()) {
      Serve(*order, **base, stop, interrupt);
    } else {
      Refuse(*order, base.status());
    }
  }
}

void Sampler::RefuseAll() {
  while (const auto order = Next()) Refuse(*order, Stopping());
}

void Sampler::Refuse(const pb::SampleOrder& order, const absl::Status& status) {
  spdlog::warn("a sampling order is refused: {} {}", absl::StatusCodeToString(status.code()),
               ErrorReason(status));
  metrics_.CountSample(false);
  const auto reply = client_.StartReply(order.sample_id(), never_);
  // A failure means that nobody waits any more.
  reply->Fail(ToSampleError(status)).IgnoreError();
}

void Sampler::Serve(const pb::SampleOrder& order, LoadedBase& base,
                    const std::function<bool()>& stop, Cancellation& interrupt) {
  const auto reply = client_.StartReply(order.sample_id(), never_);
  const auto reason = Generate(order, base, stop, interrupt, *reply);
  metrics_.CountSample(reason.ok());
  if (!reason.ok()) {
    // The status may quote the engine, never a row or a reply.
    spdlog::warn("a sampling order failed: {}", StatusText(reason.status()));
    reply->Fail(ToSampleError(reason.status())).IgnoreError();
    return;
  }
  const absl::Status sent = reply->Finish(*reason);
  if (!sent.ok()) spdlog::debug("nobody waits for a reply any more: {}", StatusText(sent));
}

absl::StatusOr<std::string> Sampler::Generate(const pb::SampleOrder& order, LoadedBase& base,
                                              const std::function<bool()>& stop,
                                              Cancellation& interrupt, SampleReply& reply) {
  if (stop()) return Stopping();
  const ballast::v1::SampleRequest& request = order.request();
  SampleConfig config;
  config.max_tokens =
      request.max_tokens() > 0 ? std::min(request.max_tokens(), kMostTokens) : kDefaultMaxTokens;
  config.temperature = request.temperature();
  config.seed = static_cast<uint64_t>(request.seed());
  BALLAST_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                           EncodePrompt(request, base, config.max_tokens));
  const auto adapter = FetchAdapter(order, base, interrupt);
  if (!adapter.ok()) return stop() ? Stopping() : adapter.status();
  LoraConfig lora;  // an order for the base alone has no rank: the default, which scales nothing
  if (order.lora_rank() > 0) {
    lora.rank = order.lora_rank();
    lora.alpha = static_cast<float>(order.lora_alpha());
  }

  TokenStream stream(*base.text.tokenizer);
  int count = 0;
  bool gone = false;
  absl::Status failure;
  const auto token = [&](int32_t id) {
    ++count;
    const auto piece = stream.Add(id);
    if (!piece.ok()) failure = piece.status();
    if (failure.ok() && stop()) failure = Stopping();
    if (failure.ok() && !piece->empty()) gone = !reply.Write(*piece);
    return failure.ok() && !gone;
  };
  BALLAST_RETURN_IF_ERROR(
      base.engine->Sample(prompt, base.text.end_tokens, config, **adapter, lora, token));
  BALLAST_RETURN_IF_ERROR(failure);
  BALLAST_ASSIGN_OR_RETURN(std::string rest, stream.Finish());
  if (!gone && !rest.empty()) reply.Write(std::move(rest));
  return std::string(count >= config.max_tokens ? "length" : "stop");
}

absl::StatusOr<const Adapter*> Sampler::FetchAdapter(const pb::SampleOrder& order,
                                                     const LoadedBase& base,
                                                     Cancellation& interrupt) {
  static const Adapter& none = *new Adapter;
  if (order.adapter_blob().empty()) return &none;
  const std::string key =
      absl::StrCat(base.digest, " ", order.lora_rank(), " ", order.adapter_blob());
  if (key == adapter_key_) return &adapter_;
  BALLAST_ASSIGN_OR_RETURN(const auto allowed,
                           artifact::AdapterTensorSpecs(base.config_json, order.lora_rank()));
  BALLAST_ASSIGN_OR_RETURN(const std::string bytes,
                           client_.ReadBlobToMemory({{}, order.sample_id()}, order.adapter_blob(),
                                                    kMaxAdapterBytes, interrupt));
  BALLAST_ASSIGN_OR_RETURN(auto tensors, artifact::ReadAdapterModel(allowed, bytes));
  adapter_key_.clear();
  adapter_.clear();
  for (artifact::AdapterTensor& tensor : tensors) {
    adapter_.push_back({std::move(tensor.name), std::move(tensor.shape), std::move(tensor.values)});
  }
  adapter_key_ = key;
  return &adapter_;
}

}  // namespace ballast::worker::agent
