// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/token_stream.h"

#include <string_view>

#include "absl/strings/match.h"
#include "common/base/status_macros.h"

namespace ballast::worker::agent {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";  // U+FFFD
// Longest run of tokens that is held back: no character has more bytes, and so needs more tokens.
constexpr size_t kMostHeldBack = 8;

}  // namespace

absl::StatusOr<std::string> TokenStream::Rest(std::string* window) const {
  const auto at = [&](size_t index) { return tokens_.begin() + static_cast<ptrdiff_t>(index); };
  BALLAST_ASSIGN_OR_RETURN(
      const std::string before,
      tokenizer_.Decode({at(window_begin_), at(emitted_end_)}, /*skip_special_tokens=*/true));
  BALLAST_ASSIGN_OR_RETURN(
      *window, tokenizer_.Decode({at(window_begin_), tokens_.end()}, /*skip_special_tokens=*/true));
  return window->size() > before.size() ? window->substr(before.size()) : std::string();
}

absl::StatusOr<std::string> TokenStream::Add(int32_t token) {
  tokens_.push_back(token);
  std::string window;
  BALLAST_ASSIGN_OR_RETURN(std::string rest, Rest(&window));
  if (absl::EndsWith(window, kReplacement) && tokens_.size() - emitted_end_ < kMostHeldBack) {
    return std::string();
  }
  window_begin_ = emitted_end_;
  emitted_end_ = tokens_.size();
  return rest;
}

absl::StatusOr<std::string> TokenStream::Finish() {
  std::string window;
  BALLAST_ASSIGN_OR_RETURN(std::string rest, Rest(&window));
  emitted_end_ = tokens_.size();
  return rest;
}

}  // namespace ballast::worker::agent
