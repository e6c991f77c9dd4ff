// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/text/tokenizer.h"

namespace ballast::text {
namespace {

struct Span {
  size_t begin = 0, end = 0;  // bytes of the rendered chat
};

absl::Status NotStable(size_t message) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "TEMPLATE_NOT_PREFIX_STABLE",
      absl::StrCat("the chat template writes earlier turns anew when later ones follow, so "
                   "the text of message ",
                   message,
                   " has no exact place; split the chat into rows of one turn each, or "
                   "give the earlier assistant turns weight 0"),
      {{"message", absl::StrCat(message)}});
}

// A failure of the template, without what it says: that may quote the chat. A failure of the
// process says nothing of the chat and stays as it is.
absl::Status WithoutDetail(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  const std::string reason = ErrorReason(status);
  return MakeError(
      status.code(), reason,
      reason == "TEMPLATE_LIMIT"
          ? "the chat template was stopped at its limits; shorten the chat"
          : "the chat template does not accept this chat; check the order of the roles");
}

size_t CommonPrefix(std::string_view a, std::string_view b) {
  return std::mismatch(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin()).first -
         a.begin();
}

std::string_view WithoutTrailingSpace(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

class SpanFinder {
 public:
  SpanFinder(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
             const std::vector<ChatMessage>& messages, std::string_view full,
             const Encoding& tokens)
      : tokenizer_(tokenizer),
        template_(chat_template),
        messages_(messages),
        full_(full),
        tokens_(tokens) {
    for (const std::string& special : tokenizer.SpecialTokens()) {
      if (const auto id = tokenizer.TokenToId(special)) special_ids_.push_back(*id);
    }
    std::sort(special_ids_.begin(), special_ids_.end());
  }

  // Where the text of the assistant's message `index` lies, with its end-of-turn token.
  absl::StatusOr<Span> Find(size_t index) const {
    std::vector<ChatMessage> prefix(messages_.begin(), messages_.begin() + index);
    const absl::StatusOr<std::string> prompt = template_.Render(prefix, true);
    if (!prompt.ok()) return WithoutDetail(prompt.status());
    prefix.push_back(messages_[index]);
    const absl::StatusOr<std::string> turn =
        index + 1 == messages_.size() ? std::string(full_) : template_.Render(prefix, false);
    if (!turn.ok()) return WithoutDetail(turn.status());
    if (!turn->starts_with(*prompt) || !full_.starts_with(*prompt)) return NotStable(index);

    // A template may close a chat with a token (Phi) that does not follow the same turn in the
    // middle of one: what the prompt of a next turn does not share is not of this turn.
    std::string_view body = *turn;
    size_t shared = CommonPrefix(body, full_);
    const absl::StatusOr<std::string> next = template_.Render(prefix, true);
    if (!next.ok() && !absl::IsInvalidArgument(next.status())) return next.status();
    if (next.ok()) shared = std::min(shared, CommonPrefix(body, *next));
    if (shared < body.size()) {
      // The texts part somewhere in the markup, perhaps inside of a token that only looks shared:
      // go back to the last special token that ends before. What is cut must be markup alone.
      const size_t cut = LastSpecialEnd(prompt->size(), shared);
      if (cut == 0 || !OnlyMarkup(body.substr(cut))) return NotStable(index);
      body = body.substr(0, cut);
    }
    return Span{prompt->size(), WithoutTrailingSpace(body).size()};
  }

  bool IsSpecial(int32_t id) const {
    return std::binary_search(special_ids_.begin(), special_ids_.end(), id);
  }

 private:
  // End of the last special token within [begin, end) of the whole text, or 0.
  size_t LastSpecialEnd(size_t begin, size_t end) const {
    size_t result = 0;
    for (size_t t = 0; t < tokens_.ids.size() && tokens_.end[t] <= end; ++t) {
      if (tokens_.begin[t] >= begin && IsSpecial(tokens_.ids[t])) result = tokens_.end[t];
    }
    return result;
  }

  bool OnlyMarkup(std::string_view text) const {
    while (true) {
      const size_t start = text.find_first_not_of(" \t\r\n");
      if (start == std::string_view::npos) return true;
      text.remove_prefix(start);
      const auto& specials = tokenizer_.SpecialTokens();
      const auto token = std::find_if(specials.begin(), specials.end(), [&](const std::string& s) {
        return !s.empty() && text.starts_with(s);
      });
      if (token == specials.end()) return false;
      text.remove_prefix(token->size());
    }
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  const std::vector<ChatMessage>& messages_;
  const std::string_view full_;
  const Encoding& tokens_;
  std::vector<int32_t> special_ids_;
};

}  // namespace

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const ModelText& text,
                                                  const std::vector<ChatMessage>& messages,
                                                  std::string_view reply_begin) {
  BALLAST_ASSIGN_OR_RETURN(std::string rendered,
                           text.chat_template->Render(messages, /*add_generation_prompt=*/true));
  rendered.append(reply_begin);
  BALLAST_ASSIGN_OR_RETURN(Encoding encoding,
                           text.tokenizer->Encode(rendered, /*add_special_tokens=*/false));
  return std::move(encoding.ids);
}

absl::StatusOr<SupervisedTokens> EncodeChat(const Tokenizer& tokenizer,
                                            const ChatTemplate& chat_template,
                                            const std::vector<ChatMessage>& messages,
                                            int64_t max_tokens) {
  const absl::StatusOr<std::string> full = chat_template.Render(messages, false);
  if (!full.ok()) return WithoutDetail(full.status());
  BALLAST_ASSIGN_OR_RETURN(Encoding tokens, tokenizer.Encode(*full, /*add_special_tokens=*/false));
  if (max_tokens > 0 && static_cast<int64_t>(tokens.ids.size()) > max_tokens) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LONG",
                     absl::StrCat("the row has ", tokens.ids.size(), " tokens, the model takes ",
                                  max_tokens, "; shorten it or split it"),
                     {{"tokens", absl::StrCat(tokens.ids.size())}});
  }

  SupervisedTokens result;
  result.supervised.assign(tokens.ids.size(), 0);
  const SpanFinder finder(tokenizer, chat_template, messages, *full, tokens);
  size_t t = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant" || !messages[i].supervised) continue;
    BALLAST_ASSIGN_OR_RETURN(const Span span, finder.Find(i));
    // A token belongs to the turn in which it begins. Spans follow one another, so one pass does.
    while (t < tokens.ids.size() && tokens.begin[t] < span.begin) ++t;
    for (; t < tokens.ids.size() && tokens.begin[t] < span.end; ++t) result.supervised[t] = 1;
  }
  result.ids = std::move(tokens.ids);
  return result;
}

}  // namespace ballast::text
