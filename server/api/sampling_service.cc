// SPDX-License-Identifier: Apache-2.0
#include "server/api/sampling_service.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/api/own_tenant.h"
#include "server/core/resource_name.h"
#include "server/core/work_of.h"

namespace ballast::server {
namespace {

constexpr char kMethod[] = "SamplingService/Sample";
constexpr size_t kMaxPromptBytes = size_t{256} << 10;
constexpr int kMaxMessages = 200;
constexpr int32_t kDefaultTokens = 128;
constexpr int32_t kMaxTokens = 1024;

class SampleStream;

// What the broker and the stream share: pieces in one direction, and whether the stream is still
// there. The broker calls with its lock held, and a stream asks the broker to forget it before it
// goes: so the stream is there as long as a call lasts.
class SampleQueue : public SampleSink {
 public:
  explicit SampleQueue(SampleStream* stream) : stream_(stream) {}
  void Piece(const v1::SampleResponse& response) override;
  void End(const absl::Status& status) override;

  // The stream is about to go; nothing is passed on from now on.
  void Detach() {
    absl::MutexLock lock(&mutex_);
    stream_ = nullptr;
  }

 private:
  friend class SampleStream;
  absl::Mutex mutex_;
  SampleStream* stream_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::SampleResponse> pieces_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  // A write is under way, the call has ended, or nothing may be written yet: whoever sets it owns
  // the stream until it is cleared.
  bool busy_ ABSL_GUARDED_BY(mutex_) = true;
};

// One call of Sample. Deletes itself.
class SampleStream : public grpc::ServerWriteReactor<v1::SampleResponse> {
 public:
  SampleStream(const ApiContext& api, grpc::CallbackServerContext* context, SampleBroker& broker,
               std::string sample_id)
      : call_(api, kMethod),
        context_(context),
        broker_(broker),
        sample_id_(std::move(sample_id)),
        queue_(std::make_shared<SampleQueue>(this)) {}

  const std::string& sample_id() const { return sample_id_; }

  // Puts the order in the queue; runs on the executor.
  void Submit(absl::StatusOr<worker::v1::SampleOrder> order, ChangeListener& listener) {
    absl::Status status = order.status();
    if (status.ok()) status = broker_.Submit(call_.Now(), *std::move(order), queue_);
    if (!status.ok()) {
      Finish(call_.End(status));
      return;
    }
    // A cancel that came before the order was there has found nothing to abandon.
    if (context_->IsCancelled()) broker_.Cancel(sample_id_);
    Next(/*release=*/true);
    listener.WorkAdded();
  }

  // Writes the next piece or ends the call, unless somebody owns the stream. `release`: the caller
  // owned it.
  void Next(bool release) {
    // Kept alive: once the lock is released another thread may end and delete the stream.
    const std::shared_ptr<SampleQueue> queue = queue_;
    std::optional<absl::Status> end;
    {
      absl::MutexLock lock(&queue->mutex_);
      if (release) queue->busy_ = false;
      if (queue->busy_) return;
      if (!queue->pieces_.empty()) {
        response_ = std::move(queue->pieces_.front());
        queue->pieces_.pop_front();
      } else if (queue->end_.has_value()) {
        end = queue->end_;
      } else {
        return;
      }
      queue->busy_ = true;
    }
    if (end.has_value()) {
      Finish(call_.End(*end));
    } else {
      StartWrite(&response_);
    }
  }

 private:
  void OnWriteDone(bool ok) override {
    if (!ok) {
      absl::MutexLock lock(&queue_->mutex_);
      queue_->pieces_.clear();
      queue_->end_ = absl::CancelledError("the client went away");
    }
    Next(/*release=*/true);
  }

  void OnCancel() override {
    call_.api().executor.Run([&broker = broker_, id = sample_id_] { broker.Cancel(id); });
  }

  void OnDone() override {
    queue_->Detach();
    call_.api().executor.Run([this] {
      broker_.Cancel(sample_id_);
      delete this;
    });
  }

  const Call call_;
  grpc::CallbackServerContext* const context_;
  SampleBroker& broker_;
  const std::string sample_id_;
  const std::shared_ptr<SampleQueue> queue_;
  v1::SampleResponse response_;
};

void SampleQueue::Piece(const v1::SampleResponse& response) {
  SampleStream* stream;
  {
    absl::MutexLock lock(&mutex_);
    pieces_.push_back(response);
    stream = stream_;
  }
  if (stream != nullptr) stream->Next(/*release=*/false);
}

void SampleQueue::End(const absl::Status& status) {
  SampleStream* stream;
  {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value()) return;
    end_ = status;
    stream = stream_;
  }
  if (stream != nullptr) stream->Next(/*release=*/false);
}

}  // namespace

grpc::ServerWriteReactor<v1::SampleResponse>* SamplingService::Sample(
    grpc::CallbackServerContext* context, const v1::SampleRequest* request) {
  auto who = Authorize(api_, *context, Allowed::kTenant);
  if (!who.ok()) {
    return new Refused<grpc::ServerWriteReactor<v1::SampleResponse>>(
        Call(api_, kMethod).End(who.status()));
  }
  auto* stream = new SampleStream(api_, context, broker_, absl::StrCat("sample-", ids_.NewId()));
  api_.executor.Run([this, stream, request, who = *std::move(who)] {
    stream->Submit(OrderOf(who, *request, stream->sample_id()), listener_);
  });
  return stream;
}

absl::StatusOr<worker::v1::SampleOrder> SamplingService::OrderOf(const Principal& who,
                                                                 const v1::SampleRequest& request,
                                                                 const std::string& sample_id) {
  BALLAST_RETURN_IF_ERROR(CheckOwnTenant(who, request.parent()));
  if (request.messages().empty() || request.messages().rbegin()->content().empty()) {
    return FieldError(
        "messages", "PROMPT_EMPTY",
        "there is nothing to answer; the last message must be the user's and have content");
  }
  size_t bytes = 0;
  for (int i = 0; i < request.messages_size(); ++i) {
    const v1::SampleMessage& message = request.messages(i);
    if (message.role() != "system" && message.role() != "user" && message.role() != "assistant") {
      return FieldError(absl::StrCat("messages[", i, "].role"), "UNKNOWN_ROLE",
                        "role must be \"system\", \"user\" or \"assistant\"");
    }
    bytes += message.content().size();
  }
  if (request.messages().rbegin()->role() != "user") {
    return FieldError("messages", "UNKNOWN_ROLE", "the last message must be the user's");
  }
  if (bytes > kMaxPromptBytes || request.messages_size() > kMaxMessages) {
    return FieldError(
        "messages", "PROMPT_TOO_LONG",
        absl::StrCat("the chat has ", request.messages_size(), " messages and ", bytes,
                     " bytes; at most ", kMaxMessages, " and ", kMaxPromptBytes, " are allowed"));
  }
  if (request.max_tokens() < 0 || request.max_tokens() > kMaxTokens) {
    return FieldError(
        "max_tokens", "MAX_TOKENS_OUT_OF_RANGE",
        absl::StrCat("max_tokens must be from 1 to ", kMaxTokens, ", or 0 for ", kDefaultTokens));
  }
  if (!(request.temperature() >= 0 && request.temperature() <= 2)) {
    return FieldError("temperature", "TEMPERATURE_OUT_OF_RANGE", "temperature must be from 0 to 2");
  }
  worker::v1::SampleOrder order;
  order.set_sample_id(sample_id);
  *order.mutable_request() = request;
  if (request.max_tokens() == 0) order.mutable_request()->set_max_tokens(kDefaultTokens);
  if (request.seed() == 0) order.mutable_request()->set_seed(ids_.NewSeed());
  std::string base_name = request.base_model();
  if (request.has_delta()) {
    BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseDeltaName(request.delta(), "delta"));
    BALLAST_ASSIGN_OR_RETURN(const JobRecord record, jobs_.GetDelta(who.tenant, name));
    base_name = record.job().base_model();
    order.set_lora_rank(record.job().hyperparameters().lora_rank());
    order.set_lora_alpha(record.job().hyperparameters().lora_alpha());
    for (const BlobFile& file : record.delta_files()) {
      if (absl::EndsWith(file.path(), "adapter_model.safetensors")) {
        order.set_adapter_blob(file.blob());
      }
    }
    if (order.adapter_blob().empty()) {
      return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                       "the delta has no adapter; tell the operator");
    }
  }
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id, ParseBaseModelName(base_name, "base_model"));
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, models_.GetRecordOf(base_id));
  *order.mutable_base_model() = FilesOf(base);
  return order;
}

}  // namespace ballast::server
