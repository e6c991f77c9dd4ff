// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_TOKEN_STREAM_H_
#define BALLAST_WORKER_AGENT_TOKEN_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"

namespace ballast::worker::agent {

// Turns tokens into text as they come. A piece is held back while it ends inside a character
// (byte-level tokens split characters) so that every piece is whole UTF-8, and the pieces joined
// are what decoding all tokens at once gives. Decodes a window of the last tokens only. Thread
// safety: not thread-safe.
class TokenStream {
 public:
  // `tokenizer` must outlive the stream.
  explicit TokenStream(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The text that `token` completes; may be empty.
  absl::StatusOr<std::string> Add(int32_t token);

  // What was held back; an incomplete character is given as U+FFFD.
  absl::StatusOr<std::string> Finish();

 private:
  absl::StatusOr<std::string> Rest(std::string* window) const;

  const text::Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;
  size_t window_begin_ = 0;  // first token of the window: it gives the decoder its context
  size_t emitted_end_ = 0;   // tokens before it have been given out
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_TOKEN_STREAM_H_
