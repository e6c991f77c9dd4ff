// SPDX-License-Identifier: Apache-2.0
#include "worker/train/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace ballast::worker {
namespace {

// Tokens taken through the model at once when a long prompt is fed: bounds the scores' memory.
constexpr int64_t kFeedTokens = 512;

}  // namespace

Decoder::Decoder(const Model& model, const LoraLayout& layout, const at::Tensor& adapter,
                 float scale, int64_t capacity)
    : model_(model), layout_(layout), scale_(scale) {
  const auto options = at::TensorOptions().dtype(model.type).device(model.device);
  if (adapter.defined()) adapter_ = adapter.to(options);
  for (int64_t layer = 0; layer < model.config.layers; ++layer) {
    keys_.push_back(at::empty({model.config.kv_heads, capacity, model.config.head_dim}, options));
    values_.push_back(at::empty_like(keys_.back()));
  }
}

at::Tensor Decoder::Apply(int layer, Group group, const at::Tensor& input) const {
  at::Tensor out = at::mm(input, model_.clean->base(layer, group).t());
  if (!adapter_.defined()) return out;
  const GroupShape& shape = layout_.group(group);
  const int64_t rank = layout_.rank(), tail = layout_.tail(group);
  const at::Tensor a =
      adapter_.narrow(0, layout_.a_offset(layer, group), tail * shape.in).view({tail, shape.in});
  const at::Tensor z = at::mm(input, a.t());
  int64_t row = 0;
  for (size_t m = 0; m < shape.modules.size(); ++m) {
    const int64_t rows = shape.module_out[m];
    const at::Tensor b =
        adapter_.narrow(0, layout_.b_offset(layer, group, static_cast<int>(m)), rows * rank)
            .view({rows, rank});
    out.narrow(1, row, rows)
        .addmm_(z.narrow(1, static_cast<int64_t>(m) * rank, rank), b.t(), 1.0, scale_);
    row += rows;
  }
  return out;
}

at::Tensor Decoder::Attend(int layer, const at::Tensor& qkv) {
  const artifact::ModelConfig& config = model_.config;
  const int64_t tokens = qkv.size(0), groups = config.kv_heads, repeat = config.queries_per_kv(),
                d = config.head_dim, total = length_ + tokens;
  const at::Tensor positions =
      at::arange(length_, total, at::TensorOptions().dtype(at::kInt).device(model_.device));
  const at::Tensor q = at::empty({groups, tokens * repeat, d}, qkv.options());
  const at::Tensor k = at::empty({groups, tokens, d}, qkv.options()), v = at::empty_like(k);
  model_.ops->SplitRotate(qkv, positions, model_.rotary, q, k, v);
  keys_[layer].narrow(1, length_, tokens).copy_(k);
  values_[layer].narrow(1, length_, tokens).copy_(v);
  const at::Tensor keys = keys_[layer].narrow(1, 0, total),
                   values = values_[layer].narrow(1, 0, total);
  const at::Tensor scores = at::bmm(q, keys.transpose(1, 2)).contiguous();
  const at::Tensor lse = at::empty({groups, tokens * repeat}, qkv.options().dtype(at::kFloat));
  const at::Tensor first = at::zeros({total}, positions.options());
  model_.ops->Softmax(scores, first, length_, repeat, 1.0 / std::sqrt(static_cast<double>(d)), lse);
  const at::Tensor heads = at::bmm(scores, values).contiguous();
  const at::Tensor out = at::empty({tokens, groups * repeat * d}, qkv.options());
  model_.ops->JoinHeads(heads, out);
  return out;
}

at::Tensor Decoder::Feed(const std::vector<int32_t>& tokens) {
  const artifact::ModelConfig& config = model_.config;
  const Ops& ops = *model_.ops;
  std::vector<at::Tensor> results;
  for (size_t begin = 0; begin < tokens.size(); begin += kFeedTokens) {
    const std::vector<int64_t> ids(
        tokens.begin() + static_cast<int64_t>(begin),
        tokens.begin() + static_cast<int64_t>(std::min(tokens.size(), begin + kFeedTokens)));
    at::Tensor x = model_.embedding.index_select(0, at::tensor(ids).to(model_.device));
    const at::Tensor rstd = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
    const at::Tensor normed = at::empty_like(x);
    const auto norm = [&](const at::Tensor& weight) {
      ops.RmsNorm(x, at::Tensor(), weight, config.rms_epsilon, at::Tensor(), normed, rstd);
    };
    for (int layer = 0; layer < config.layers; ++layer) {
      norm(model_.attention_norms[layer]);
      x = x + Apply(layer, kOut, Attend(layer, Apply(layer, kQkv, normed)));
      norm(model_.mlp_norms[layer]);
      const at::Tensor gate_up = Apply(layer, kGateUp, normed);
      const at::Tensor activation = at::empty({x.size(0), config.intermediate}, x.options());
      ops.SwiGlu(gate_up, activation);
      x = x + Apply(layer, kDownGroup, activation);
    }
    norm(model_.final_norm);
    length_ += x.size(0);
    results.push_back(normed);
  }
  return results.size() == 1 ? results.front() : at::cat(results);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden) const {
  return at::mm(hidden, model_.head.t()).to(at::kFloat);
}

}  // namespace ballast::worker
