// SPDX-License-Identifier: Apache-2.0
#include "worker/train/generator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "worker/train/random.h"

namespace ballast::worker {
namespace {

// Sequences at once: beyond this the products gain little and the cache's memory grows.
constexpr int64_t kMostSequences = 64;
constexpr int64_t kCacheBytes = int64_t{256} << 20;

int64_t SequencesThatFit(const artifact::ModelConfig& config, int64_t element_bytes,
                         int64_t capacity, size_t prompts) {
  const int64_t bytes =
      2 * config.layers * config.kv_heads * config.head_dim * capacity * element_bytes;
  return std::clamp<int64_t>(kCacheBytes / bytes, 1,
                             std::min<int64_t>(kMostSequences, static_cast<int64_t>(prompts)));
}

// One draw from softmax(logits / temperature) by the counter's number; logits float32 [V].
int32_t Draw(const at::Tensor& logits, double temperature, const CounterRandom& random,
             int64_t counter) {
  const at::Tensor sums =
      at::softmax(logits.to(at::kDouble) / temperature, -1).view({-1}).cumsum(0).cpu();
  const double* begin = sums.const_data_ptr<double>();
  const double* end = begin + sums.numel();
  const double target = random.Uniform(static_cast<uint64_t>(counter)) * *(end - 1);
  return static_cast<int32_t>(std::min(std::upper_bound(begin, end, target), end - 1) - begin);
}

// Tokens that all of several prompts begin with, all but the last one of the shortest at most.
int64_t CommonBeginning(const std::vector<std::vector<int32_t>>& prompts) {
  const std::vector<int32_t>& first = prompts.front();
  auto common = static_cast<std::ptrdiff_t>(prompts.size() > 1 ? first.size() - 1 : 0);
  for (const std::vector<int32_t>& prompt : prompts) {
    common = std::min(common, static_cast<std::ptrdiff_t>(prompt.size()) - 1);
    common =
        std::mismatch(first.begin(), first.begin() + common, prompt.begin()).first - first.begin();
  }
  return common;
}

// A reply in the making, in its place in the decoder.
struct Reply {
  size_t prompt = 0;
  int64_t sequence = 0;
  int tokens = 0;    // drawn so far
  int32_t last = 0;  // to be fed next
};

}  // namespace

void Generate(const Model& model, const std::vector<std::vector<int32_t>>& prompts,
              const std::vector<int32_t>& end_tokens, const SampleConfig& config,
              std::vector<AppliedAdapter> adapters,
              const std::function<bool(size_t, int32_t)>& token) {
  if (prompts.empty()) return;
  size_t longest = 0;
  for (const std::vector<int32_t>& prompt : prompts) longest = std::max(longest, prompt.size());
  const int64_t capacity = static_cast<int64_t>(longest) + config.max_tokens;
  const int64_t sequences = SequencesThatFit(
      model.config, static_cast<int64_t>(c10::elementSize(model.type)), capacity, prompts.size());
  // What all prompts begin with is fed once, into a sequence of its own.
  const int64_t common = CommonBeginning(prompts);
  const int64_t beginning = sequences;
  Decoder decoder(model, std::move(adapters), sequences + (common > 0 ? 1 : 0), capacity);
  if (common > 0) {
    decoder.Feed({{beginning, {prompts[0].begin(), prompts[0].begin() + common}}});
  }

  std::vector<Reply> running;  // in the sequences 0, 1, 2, ..
  size_t next_prompt = 0;

  // Draws the next token of each of `replies` from its hidden state [n, H] and adds to `running`
  // those that go on, which close up.
  const auto draw = [&](const std::vector<Reply>& replies, const at::Tensor& hidden) {
    const at::Tensor logits = decoder.Logits(hidden);
    const at::Tensor greedy =
        config.temperature > 0 ? at::Tensor() : logits.argmax(-1).to(at::kLong).cpu();
    for (size_t i = 0; i < replies.size(); ++i) {
      Reply reply = replies[i];
      reply.last = greedy.defined() ? static_cast<int32_t>(greedy.const_data_ptr<int64_t>()[i])
                                    : Draw(logits[static_cast<int64_t>(i)], config.temperature,
                                           CounterRandom(config.seed, reply.prompt), reply.tokens);
      ++reply.tokens;
      const bool ended =
          std::find(end_tokens.begin(), end_tokens.end(), reply.last) != end_tokens.end();
      if (!ended && token(reply.prompt, reply.last) && reply.tokens < config.max_tokens) {
        const auto sequence = static_cast<int64_t>(running.size());
        if (sequence != reply.sequence) decoder.Move(reply.sequence, sequence);
        reply.sequence = sequence;
        running.push_back(reply);
      } else {
        decoder.Clear(reply.sequence);
      }
    }
  };

  while (next_prompt < prompts.size() || !running.empty()) {
    // New prompts are fed when there is room for several: a pass costs little more for many.
    auto sequence = static_cast<int64_t>(running.size());
    if (next_prompt < prompts.size() &&
        sequences - sequence >= std::max<int64_t>(1, sequences / 4)) {
      std::vector<Decoder::Piece> pieces;
      std::vector<Reply> started;
      std::vector<int64_t> last_rows;
      int64_t rows = 0;
      for (; next_prompt < prompts.size() && sequence < sequences; ++next_prompt, ++sequence) {
        const std::vector<int32_t>& prompt = prompts[next_prompt];
        started.push_back({.prompt = next_prompt, .sequence = sequence});
        if (common > 0) decoder.CopyBeginning(beginning, sequence, common);
        pieces.push_back({sequence, {prompt.begin() + common, prompt.end()}});
        rows += static_cast<int64_t>(prompt.size()) - common;
        last_rows.push_back(rows - 1);
      }
      const at::Tensor hidden = decoder.Feed(pieces);
      draw(started, hidden.index_select(0, at::tensor(last_rows).to(model.device)));
      continue;
    }
    std::vector<Decoder::Piece> pieces;
    pieces.reserve(running.size());
    for (const Reply& reply : running) pieces.push_back({reply.sequence, {reply.last}});
    const std::vector<Reply> stepping = std::exchange(running, {});
    draw(stepping, decoder.Feed(pieces));
  }
}

}  // namespace ballast::worker
