// SPDX-License-Identifier: Apache-2.0
#include "common/text/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/rust/include/ballast_text.h"
#include "common/rust/rust_call.h"

namespace ballast::text {
namespace {

struct TokenizerFree {
  void operator()(BallastTextTokenizer* tokenizer) const { ballast_text_tokenizer_free(tokenizer); }
};
using Handle = std::unique_ptr<BallastTextTokenizer, TokenizerFree>;

absl::Status TokenizeError(int32_t code, const std::string& message) {
  return code == BALLAST_TEXT_PANIC
             ? MakeError(absl::StatusCode::kInternal, "TEXT_LIBRARY_FAILED", message)
             : MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZE_FAILED", message);
}

class RustTokenizer final : public Tokenizer {
 public:
  explicit RustTokenizer(Handle handle) : handle_(std::move(handle)) {
    const size_t count = ballast_text_tokenizer_special_count(handle_.get());
    special_tokens_.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const BallastText token = ballast_text_tokenizer_special_at(handle_.get(), i);
      special_tokens_.emplace_back(token.data, token.size);
    }
  }

  absl::StatusOr<Encoding> Encode(std::string_view text, bool add_special_tokens) const override {
    BallastTextEncoding encoding{};
    BallastTextBuffer error{};
    const int32_t code = ballast_text_tokenizer_encode(handle_.get(), ToRust(text),
                                                       add_special_tokens, &encoding, &error);
    if (code != BALLAST_TEXT_OK) return TokenizeError(code, TakeBuffer(error));
    Encoding result;
    result.ids.assign(encoding.ids, encoding.ids + encoding.size);
    result.begin.assign(encoding.begin, encoding.begin + encoding.size);
    result.end.assign(encoding.end, encoding.end + encoding.size);
    ballast_text_encoding_free(encoding);
    return result;
  }

  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const override {
    // A negative id becomes one that no vocabulary has; unknown ids decode to nothing.
    const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
    BallastTextBuffer text{}, error{};
    const int32_t code =
        ballast_text_tokenizer_decode(handle_.get(), unsigned_ids.data(), unsigned_ids.size(),
                                      skip_special_tokens, &text, &error);
    if (code != BALLAST_TEXT_OK) return TokenizeError(code, TakeBuffer(error));
    return TakeBuffer(text);
  }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const int64_t id = ballast_text_tokenizer_token_to_id(handle_.get(), ToRust(token));
    if (id < 0 || id > INT32_MAX) return std::nullopt;
    return static_cast<int32_t>(id);
  }

  const std::vector<std::string>& SpecialTokens() const override { return special_tokens_; }

  int64_t VocabularySize() const override {
    return static_cast<int64_t>(ballast_text_tokenizer_vocabulary_size(handle_.get()));
  }

 private:
  const Handle handle_;
  std::vector<std::string> special_tokens_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  BallastTextTokenizer* tokenizer = nullptr;
  BallastTextBuffer error{};
  const int32_t code = ballast_text_tokenizer_new(ToRust(tokenizer_json), &tokenizer, &error);
  if (code != BALLAST_TEXT_OK) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZER_INVALID",
                     absl::StrCat("tokenizer.json cannot be read; download the model again: ",
                                  TakeBuffer(error).substr(0, 300)));
  }
  return std::make_unique<RustTokenizer>(Handle(tokenizer));
}

}  // namespace ballast::text
