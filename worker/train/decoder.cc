// SPDX-License-Identifier: Apache-2.0
#include "worker/train/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace ballast::worker {
namespace {

// Tokens taken through the model at once when a long prompt is fed: bounds the scores' memory.
constexpr int64_t kFeedTokens = 512;

}  // namespace

Decoder::Decoder(const Model& model, std::vector<AppliedAdapter> adapters, int64_t sequences,
                 int64_t capacity)
    : model_(model), adapters_(std::move(adapters)), lengths_(sequences, 0) {
  const auto options = at::TensorOptions().dtype(model.type).device(model.device);
  const artifact::ModelConfig& config = model.config;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    keys_.push_back(at::empty({sequences, config.kv_heads, capacity, config.head_dim}, options));
    values_.push_back(at::zeros_like(keys_.back()));
  }
}

void Decoder::Clear(int64_t sequence) {
  for (const at::Tensor& values : values_) {
    values.select(0, sequence).narrow(1, 0, lengths_[sequence]).zero_();
  }
  lengths_[sequence] = 0;
}

void Decoder::CopyBeginning(int64_t from, int64_t to, int64_t tokens) {
  for (const std::vector<at::Tensor>* caches : {&keys_, &values_}) {
    for (const at::Tensor& cache : *caches) {
      cache.select(0, to).narrow(1, 0, tokens).copy_(cache.select(0, from).narrow(1, 0, tokens));
    }
  }
  lengths_[to] = tokens;
}

void Decoder::Move(int64_t from, int64_t to) {
  CopyBeginning(from, to, lengths_[from]);
  Clear(from);
}

at::Tensor Decoder::Apply(int layer, Group group, const at::Tensor& input) const {
  at::Tensor out = at::mm(input, model_.clean->base(layer, group).t());
  for (const AppliedAdapter& adapter : adapters_) {
    const LoraLayout& layout = adapter.layout;
    const GroupShape& shape = layout.group(group);
    const int64_t rank = layout.rank(), tail = layout.tail(group);
    const at::Tensor a = adapter.values.narrow(0, layout.a_offset(layer, group), tail * shape.in)
                             .view({tail, shape.in});
    const at::Tensor z = at::mm(input, a.t());
    int64_t row = 0;
    for (size_t m = 0; m < shape.modules.size(); ++m) {
      const int64_t rows = shape.module_out[m];
      const at::Tensor b =
          adapter.values.narrow(0, layout.b_offset(layer, group, static_cast<int>(m)), rows * rank)
              .view({rows, rank});
      out.narrow(1, row, rows)
          .addmm_(z.narrow(1, static_cast<int64_t>(m) * rank, rank), b.t(), 1.0, adapter.scale);
      row += rows;
    }
  }
  return out;
}

at::Tensor Decoder::Attend(int layer, const at::Tensor& qkv, const at::Tensor& positions,
                           const std::vector<Piece>& pieces) {
  const artifact::ModelConfig& config = model_.config;
  const int64_t tokens = qkv.size(0), groups = config.kv_heads, repeat = config.queries_per_kv(),
                d = config.head_dim;
  const at::Tensor q = at::empty({groups, tokens * repeat, d}, qkv.options());
  const at::Tensor k = at::empty({groups, tokens, d}, qkv.options()), v = at::empty_like(k);
  model_.ops->SplitRotate(qkv, positions, model_.rotary, q, k, v);
  const at::Tensor out = at::empty({tokens, groups * repeat * d}, qkv.options());
  if (tokens == static_cast<int64_t>(pieces.size())) {
    AttendStep(layer, q, k, v, pieces, out);
    return out;
  }
  int64_t begin = 0;
  for (const Piece& piece : pieces) {
    AttendPiece(layer, q, k, v, piece, begin, out);
    begin += static_cast<int64_t>(piece.tokens.size());
  }
  return out;
}

void Decoder::AttendPiece(int layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const Piece& piece, int64_t begin, const at::Tensor& out) {
  const auto tokens = static_cast<int64_t>(piece.tokens.size());
  const int64_t groups = q.size(0), d = q.size(2), repeat = model_.config.queries_per_kv();
  const int64_t past = lengths_[piece.sequence], total = past + tokens;
  const at::Tensor keys = keys_[layer].select(0, piece.sequence).narrow(1, 0, total);
  const at::Tensor values = values_[layer].select(0, piece.sequence).narrow(1, 0, total);
  keys.narrow(1, past, tokens).copy_(k.narrow(1, begin, tokens));
  values.narrow(1, past, tokens).copy_(v.narrow(1, begin, tokens));
  const at::Tensor queries = q.narrow(1, begin * repeat, tokens * repeat);
  const at::Tensor scores = at::bmm(queries, keys.transpose(1, 2)).contiguous();
  const at::Tensor lse = at::empty({groups, tokens * repeat}, q.options().dtype(at::kFloat));
  const at::Tensor first = at::zeros({total}, q.options().dtype(at::kInt));
  model_.ops->Softmax(scores, first, past, repeat, 1.0 / std::sqrt(static_cast<double>(d)), lse);
  model_.ops->JoinHeads(at::bmm(scores, values).contiguous(), out.narrow(0, begin, tokens));
}

void Decoder::AttendStep(int layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const std::vector<Piece>& pieces, const at::Tensor& out) {
  const auto count = static_cast<int64_t>(pieces.size());
  const int64_t groups = q.size(0), d = q.size(2), repeat = model_.config.queries_per_kv();
  std::vector<int64_t> past;
  for (const Piece& piece : pieces) past.push_back(lengths_[piece.sequence]);
  const int64_t total = *std::max_element(past.begin(), past.end()) + 1;
  const at::Tensor places = at::tensor(past).to(model_.device);
  const at::Tensor each = at::arange(count, places.options());
  // [count, G, ...]: every sequence with the keys of the longest, those beyond its own masked.
  const auto append = [&](const at::Tensor& cache, const at::Tensor& added) {
    at::Tensor own = cache.narrow(0, pieces.front().sequence, count);
    at::index_put_(own, {each, std::nullopt, places}, added.transpose(0, 1));
    return own.narrow(2, 0, total).view({count * groups, total, d});
  };
  const at::Tensor keys = append(keys_[layer], k), values = append(values_[layer], v);
  const at::Tensor queries =
      q.view({groups, count, repeat, d}).transpose(0, 1).reshape({count * groups, repeat, d});
  const at::Tensor beyond = at::arange(total, places.options())
                                .unsqueeze(0)
                                .gt(places.unsqueeze(1))
                                .view({count, 1, 1, total});
  const at::Tensor scores = at::bmm(queries, keys.transpose(1, 2))
                                .to(at::kFloat)
                                .mul_(1.0 / std::sqrt(static_cast<double>(d)))
                                .view({count, groups, repeat, total})
                                .masked_fill_(beyond, -std::numeric_limits<float>::infinity());
  const at::Tensor weights =
      at::softmax(scores, -1).to(q.scalar_type()).view({count * groups, repeat, total});
  out.copy_(at::bmm(weights, values).view({count, groups * repeat * d}));
}

at::Tensor Decoder::Pass(const std::vector<Piece>& pieces) {
  const artifact::ModelConfig& config = model_.config;
  const Ops& ops = *model_.ops;
  std::vector<int64_t> ids;
  std::vector<int32_t> places;
  for (const Piece& piece : pieces) {
    for (size_t t = 0; t < piece.tokens.size(); ++t) {
      ids.push_back(piece.tokens[t]);
      places.push_back(static_cast<int32_t>(lengths_[piece.sequence] + static_cast<int64_t>(t)));
    }
  }
  const at::Tensor positions = at::tensor(places).to(model_.device);
  at::Tensor x = model_.embedding.index_select(0, at::tensor(ids).to(model_.device));
  const at::Tensor rstd = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  const at::Tensor normed = at::empty_like(x);
  const auto norm = [&](const at::Tensor& weight) {
    ops.RmsNorm(x, at::Tensor(), weight, config.rms_epsilon, at::Tensor(), normed, rstd);
  };
  for (int layer = 0; layer < config.layers; ++layer) {
    norm(model_.attention_norms[layer]);
    const at::Tensor heads = Attend(layer, Apply(layer, kQkv, normed), positions, pieces);
    x = x + Apply(layer, kOut, heads);
    norm(model_.mlp_norms[layer]);
    const at::Tensor gate_up = Apply(layer, kGateUp, normed);
    const at::Tensor activation = at::empty({x.size(0), config.intermediate}, x.options());
    ops.SwiGlu(gate_up, activation);
    x = x + Apply(layer, kDownGroup, activation);
  }
  norm(model_.final_norm);
  for (const Piece& piece : pieces) {
    lengths_[piece.sequence] += static_cast<int64_t>(piece.tokens.size());
  }
  return normed;
}

at::Tensor Decoder::Feed(const std::vector<Piece>& pieces) {
  std::vector<at::Tensor> results;
  std::vector<Piece> pass;
  int64_t tokens = 0;
  const auto flush = [&] {
    if (!pass.empty()) results.push_back(Pass(pass));
    pass.clear();
    tokens = 0;
  };
  for (const Piece& piece : pieces) {
    for (auto begin = piece.tokens.begin(); begin != piece.tokens.end();) {
      if (tokens == kFeedTokens) flush();
      // A piece that goes on is a later pass's: one sequence comes once in a pass.
      const int64_t count = std::min<int64_t>(piece.tokens.end() - begin, kFeedTokens - tokens);
      pass.push_back({piece.sequence, {begin, begin + count}});
      begin += count;
      tokens += count;
    }
  }
  flush();
  return results.size() == 1 ? results.front() : at::cat(results);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden) const {
  return at::mm(hidden, model_.head.t()).to(at::kFloat);
}

}  // namespace ballast::worker
