// SPDX-License-Identifier: Apache-2.0
#include "worker/testing/fake_text.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"

namespace ballast::worker::testing {
namespace {

constexpr int32_t kEnd = 256;
constexpr std::string_view kEndText = "<|end|>";

// Whether `bytes` at `at` begin a whole UTF-8 character; its length, or 0.
size_t CharacterLength(std::string_view bytes, size_t at) {
  const auto first = static_cast<unsigned char>(bytes[at]);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                                       : 4;
  if (length == 0 || at + length > bytes.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(bytes[at + i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

class ByteTokenizer : public text::Tokenizer {
 public:
  absl::StatusOr<text::Encoding> Encode(std::string_view input, bool) const override {
    text::Encoding encoding;
    for (size_t at = 0; at < input.size();) {
      const bool end = input.substr(at, kEndText.size()) == kEndText;
      const size_t length = end ? kEndText.size() : 1;
      encoding.ids.push_back(end ? kEnd : static_cast<unsigned char>(input[at]));
      encoding.begin.push_back(static_cast<uint32_t>(at));
      encoding.end.push_back(static_cast<uint32_t>(at + length));
      at += length;
    }
    return encoding;
  }

  // Bytes that are no UTF-8 become U+FFFD, as byte-level decoders do.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (id < 256) {
        bytes += static_cast<char>(id);
      } else if (!skip_special_tokens) {
        bytes += kEndText;
      }
    }
    std::string out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = CharacterLength(bytes, at);
      out += length == 0 ? "\xef\xbf\xbd" : bytes.substr(at, length);
      at += length == 0 ? 1 : length;
    }
    return out;
  }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    if (token == kEndText) return kEnd;
    return std::nullopt;
  }
  const std::vector<std::string>& SpecialTokens() const override { return special_; }
  int64_t VocabularySize() const override { return 257; }

 private:
  const std::vector<std::string> special_ = {std::string(kEndText)};
};

class LineTemplate : public text::ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(const std::vector<text::ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    std::string out;
    for (const text::ChatMessage& message : messages) {
      absl::StrAppend(&out, message.role, ": ", message.content, std::string(kEndText), "\n");
    }
    if (add_generation_prompt) out += "assistant: ";
    return out;
  }
};

}  // namespace

text::ModelText FakeModelText() {
  text::ModelText model;
  model.tokenizer = std::make_unique<ByteTokenizer>();
  model.chat_template = std::make_unique<LineTemplate>();
  model.end_tokens = {kEnd};
  model.tokenizer_digest = DigestOf("byte tokenizer");
  model.template_digest = DigestOf("line template");
  return model;
}

}  // namespace ballast::worker::testing
