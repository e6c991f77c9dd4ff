// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/rust/include/ballast_text.h"
#include "common/rust/rust_call.h"
#include "common/text/tokenizer.h"

namespace ballast::text {
namespace {

struct TemplateFree {
  void operator()(BallastTextTemplate* t) const { ballast_text_template_free(t); }
};
using Handle = std::unique_ptr<BallastTextTemplate, TemplateFree>;

// What a failed call means; `context` says what was tried.
absl::Status TemplateError(int32_t code, std::string_view reason, std::string_view context,
                           BallastTextBuffer error) {
  const std::string detail = TakeBuffer(error);
  switch (code) {
    case BALLAST_TEXT_BUSY:
      return MakeError(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY",
                       absl::StrCat("threads or memory ran out; try again: ", detail));
    case BALLAST_TEXT_PANIC:
      return MakeError(absl::StatusCode::kInternal, "TEXT_LIBRARY_FAILED", detail);
    case BALLAST_TEXT_LIMIT:
      return MakeError(absl::StatusCode::kInvalidArgument, "TEMPLATE_LIMIT",
                       absl::StrCat("the chat template was stopped: ", detail,
                                    "; correct the template, or shorten the chat"));
    default:
      return MakeError(
          absl::StatusCode::kInvalidArgument, reason,
          absl::StrCat(absl::string_view(context.data(), context.size()), ": ", detail));
  }
}

class RustChatTemplate final : public ChatTemplate {
 public:
  explicit RustChatTemplate(Handle handle) : handle_(std::move(handle)) {}

  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    std::vector<BallastTextMessage> views;
    views.reserve(messages.size());
    for (const ChatMessage& message : messages) {
      views.push_back({ToRust(message.role), ToRust(message.content)});
    }
    BallastTextBuffer text{}, error{};
    const int32_t code = ballast_text_template_render(
        handle_.get(), views.data(), views.size(), add_generation_prompt,
        absl::ToUnixSeconds(kTemplateTime), &text, &error);
    if (code == BALLAST_TEXT_OK) return TakeBuffer(text);
    return TemplateError(code, "TEMPLATE_FAILED",
                         "the chat template does not accept these messages", error);
  }

 private:
  const Handle handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromSource(std::string_view source,
                                                                       std::string_view bos,
                                                                       std::string_view eos) {
  BallastTextTemplate* chat_template = nullptr;
  BallastTextBuffer error{};
  const int32_t code =
      ballast_text_template_new(ToRust(source), ToRust(bos), ToRust(eos), &chat_template, &error);
  if (code != BALLAST_TEXT_OK) {
    return TemplateError(code, "TEMPLATE_INVALID", "the chat template does not compile; correct it",
                         error);
  }
  return std::make_unique<RustChatTemplate>(Handle(chat_template));
}

}  // namespace ballast::text
