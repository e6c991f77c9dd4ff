// SPDX-License-Identifier: Apache-2.0
// Tokenizer and chat template of a base model, over the Rust crates HF `tokenizers` and `minijinja`
// (one static library behind a C interface, ADR 3).
#ifndef BALLAST_COMMON_TEXT_TOKENIZER_H_
#define BALLAST_COMMON_TEXT_TOKENIZER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ballast::text {

struct Encoding {
  std::vector<int32_t> ids;     // [T]
  std::vector<uint32_t> begin;  // [T] byte offset of each token's first byte in the text
  std::vector<uint32_t> end;    // [T] byte offset after its last byte
};

// Thread safety: thread-safe after construction.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // From the bytes of a tokenizer.json. INVALID_ARGUMENT TOKENIZER_INVALID.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json);

  // Tokens of `text` (UTF-8). Special tokens written in the text become their ids;
  // `add_special_tokens` runs the post-processor (BOS and the like); rendered chats do not want it.
  // INVALID_ARGUMENT TOKENIZE_FAILED, for example when the text is not UTF-8.
  virtual absl::StatusOr<Encoding> Encode(std::string_view text, bool add_special_tokens) const = 0;
  virtual absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                             bool skip_special_tokens) const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  // Strings of all added tokens flagged special, for example "<|im_end|>".
  virtual const std::vector<std::string>& SpecialTokens() const = 0;
  virtual int64_t VocabularySize() const = 0;
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
  bool supervised = true;  // for assistant messages: false where the row's `weight` is 0
};

// What strftime_now of a template takes for now, in UTC: 2024-07-26, the date that Llama 3's own
// template falls back to. The tokens of a row must not depend on when and where it is read: a job
// that goes on from a checkpoint reads its rows again.
inline constexpr absl::Time kTemplateTime = absl::FromUnixSeconds(1'721'952'000);

// A Jinja chat template as transformers' apply_chat_template runs it: trim_blocks, lstrip_blocks,
// raise_exception, strftime_now (of kTemplateTime), tojson, loop controls, Python methods of
// str/dict/list. Bounded in steps, memory and output, compiling included, so that a hostile
// template cannot hang or eat the process. Thread safety: thread-safe after construction.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  // INVALID_ARGUMENT TEMPLATE_INVALID when it does not compile, TEMPLATE_LIMIT when that needs too
  // much memory; the last two of Render. `bos`/`eos` are the template's variables bos_token and
  // eos_token.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> FromSource(std::string_view source,
                                                                  std::string_view bos,
                                                                  std::string_view eos);

  // INVALID_ARGUMENT TEMPLATE_FAILED (the template raised, for example on an odd role order) or
  // TEMPLATE_LIMIT (too many steps, too much memory or too long); it stays usable. Not the
  // messages' fault: UNAVAILABLE TEXT_LIBRARY_BUSY (no thread could be started; try again),
  // INTERNAL TEXT_LIBRARY_FAILED (a bug of the library).
  virtual absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                             bool add_generation_prompt) const = 0;
};

// What a base model's folder says about text: tokenizer.json, tokenizer_config.json (chat_template,
// or chat_template.jinja beside it; bos/eos), generation_config.json or config.json (eos ids).
struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::vector<int32_t> end_tokens;  // ids that end a reply
  std::string tokenizer_digest;     // "sha256:..." of tokenizer.json
  std::string template_digest;      // "sha256:..." of the template's source

  // From the bytes of those files by name; names it does not know are ignored. chat_template.jinja
  // wins over the configuration. INVALID_ARGUMENT with reasons TOKENIZER_MISSING,
  // TOKENIZER_INVALID, TEMPLATE_MISSING, TEMPLATE_INVALID, MODEL_TEXT_INVALID (a configuration is
  // not JSON, or an end token is not in the vocabulary).
  static absl::StatusOr<ModelText> FromFiles(const std::map<std::string, std::string>& files);
  // The same from a folder; also the errors of reading it.
  static absl::StatusOr<ModelText> FromFolder(const std::string& folder);
};

// Tokens of `messages` as the model is asked them: rendered with the generation prompt, and with
// `reply_begin` after it. The errors of Render and Encode.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const ModelText& text,
                                                  const std::vector<ChatMessage>& messages,
                                                  std::string_view reply_begin = "");

struct SupervisedTokens {
  std::vector<int32_t> ids;         // [T] of the whole rendered chat
  std::vector<uint8_t> supervised;  // [T] 1 on tokens of assistant text and its end-of-turn token
};

// Renders and tokenises a chat, and marks exactly the tokens of supervised assistant turns: those
// that begin in the span between the rendering of everything before the turn (with the generation
// prompt) and the end of the turn's end-of-turn token; white space after that token is left out,
// and so is what a template writes only at the end of a whole chat. Renders the chat's prefixes, so
// the cost is quadratic in turns; `max_tokens` (0: none) is checked before. INVALID_ARGUMENT with
// reasons TOO_LONG (more than `max_tokens`), TEMPLATE_NOT_PREFIX_STABLE (the template rewrites
// earlier turns, so that no exact span exists), TEMPLATE_FAILED, TEMPLATE_LIMIT, TOKENIZE_FAILED;
// any other code is not the chat's fault (TEXT_LIBRARY_BUSY, TEXT_LIBRARY_FAILED). No message
// quotes the chat. Thread safety: thread-safe.
absl::StatusOr<SupervisedTokens> EncodeChat(const Tokenizer& tokenizer,
                                            const ChatTemplate& chat_template,
                                            const std::vector<ChatMessage>& messages,
                                            int64_t max_tokens = 0);

}  // namespace ballast::text

#endif  // BALLAST_COMMON_TEXT_TOKENIZER_H_
