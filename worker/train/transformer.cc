// SPDX-License-Identifier: Apache-2.0
#include "worker/train/transformer.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "worker/train/attention.h"

namespace ballast::worker {

Transformer::Saved Transformer::SavedFor(int layer, const PackedBatch& batch,
                                         const ActiveAdapter* adapter, bool keep) {
  const artifact::ModelConfig& config = model_.config;
  const int64_t tokens = batch.tokens, rows = RowsAfterAttention(layer, batch);
  const std::string suffix = keep ? absl::StrCat(".", layer) : ".shared";
  const auto get = [&](const char* name, at::IntArrayRef shape, at::ScalarType type) {
    return workspace_.Get(absl::StrCat(name, suffix), shape, type);
  };
  const at::ScalarType type = model_.type;
  const int64_t repeat = config.queries_per_kv(), g = config.kv_heads, d = config.head_dim;
  Saved saved;
  saved.x = get("x", {tokens, config.hidden}, type);
  saved.x_mid = get("x_mid", {rows, config.hidden}, type);
  saved.q = get("q", {g, tokens * repeat, d}, type);
  saved.k = get("k", {g, tokens, d}, type);
  saved.v = get("v", {g, tokens, d}, type);
  saved.heads = get("heads", {g, tokens * repeat, d}, type);
  saved.lse = get("lse", {g, batch.places * repeat}, at::kFloat);
  saved.gate_up = get("gate_up", {rows, 2 * config.intermediate}, type);
  saved.rstd_attention = get("rstd_attention", {tokens}, at::kFloat);
  saved.rstd_mlp = get("rstd_mlp", {rows}, at::kFloat);
  if (adapter != nullptr) {
    for (int group = 0; group < kGroups; ++group) {
      const int64_t tail = adapter->layout->tail(static_cast<Group>(group));
      saved.z[group] =
          get(absl::StrCat("z", group).c_str(), {group == kQkv ? tokens : rows, tail}, type);
    }
  }
  return saved;
}

at::Tensor Transformer::Augmented(Group group, int64_t rows, const LinearWeights& weights) {
  return workspace_.Get(absl::StrCat("augmented", group),
                        {rows, weights.augmented(0, group).size(1)});
}

at::Tensor Transformer::InputOf(const at::Tensor& augmented, Group group) const {
  return augmented.narrow(1, 0, ShapeOf(model_.config, group).in);
}

at::Tensor Transformer::TailOf(const at::Tensor& augmented, Group group) const {
  const int64_t in = ShapeOf(model_.config, group).in;
  return augmented.narrow(1, in, augmented.size(1) - in);
}

void Transformer::GroupForward(int layer, Group group, const at::Tensor& augmented,
                               const LinearWeights& weights, const ActiveAdapter* adapter,
                               const at::Tensor& z, at::Tensor out) {
  at::Tensor tail = TailOf(augmented, group);
  if (adapter == nullptr) {
    if (tail.size(1) > 0) tail.zero_();
  } else {
    const LoraLayout& layout = *adapter->layout;
    const int64_t in = layout.group(group).in;
    const at::Tensor a =
        adapter->values.narrow(0, layout.a_offset(layer, group), layout.tail(group) * in)
            .view({layout.tail(group), in});
    at::Tensor product = z;
    at::mm_out(product, InputOf(augmented, group), a.t());
    tail.copy_(product);
  }
  at::mm_out(out, augmented, weights.augmented(layer, group).t());
}

Transformer::Output Transformer::Forward(const PackedBatch& batch, const LinearWeights& weights,
                                         const ActiveAdapter* adapter, bool keep) {
  return RunLayers(batch, weights, adapter, keep, static_cast<int>(model_.config.layers));
}

Transformer::Output Transformer::ForwardPart(const PackedBatch& batch, const LinearWeights& weights,
                                             int layers) {
  return RunLayers(batch, weights, nullptr, /*keep=*/false, layers);
}

Transformer::Output Transformer::RunLayers(const PackedBatch& batch, const LinearWeights& weights,
                                           const ActiveAdapter* adapter, bool keep, int layers) {
  const artifact::ModelConfig& config = model_.config;
  const Ops& ops = *model_.ops;
  at::Tensor delta;  // what the previous layer's MLP adds to its x_mid
  at::Tensor stream;
  for (int layer = 0; layer < layers; ++layer) {
    const int64_t rows = RowsAfterAttention(layer, batch);
    Saved saved = SavedFor(layer, batch, adapter, keep);

    at::Tensor input = Augmented(kQkv, batch.tokens, weights);
    if (layer == 0) {
      at::index_select_out(saved.x, model_.embedding, 0, batch.token_ids);
      ops.RmsNorm(saved.x, at::Tensor(), model_.attention_norms[layer], config.rms_epsilon,
                  at::Tensor(), InputOf(input, kQkv), saved.rstd_attention);
    } else {
      ops.RmsNorm(stream, delta, model_.attention_norms[layer], config.rms_epsilon, saved.x,
                  InputOf(input, kQkv), saved.rstd_attention);
    }
    at::Tensor qkv = workspace_.Get("qkv", {batch.tokens, weights.augmented(layer, kQkv).size(0)});
    GroupForward(layer, kQkv, input, weights, adapter, saved.z[kQkv], qkv);
    ops.SplitRotate(qkv, batch.positions, model_.rotary, saved.q, saved.k, saved.v);
    AttentionForward(ops, batch, saved.q, saved.k, saved.v, workspace_, saved.heads, saved.lse);

    at::Tensor attention = Augmented(kOut, batch.tokens, weights);
    ops.JoinHeads(saved.heads, InputOf(attention, kOut));
    at::Tensor x = saved.x;
    if (SelectsRows(layer, batch)) {
      at::Tensor selected = workspace_.Get("selected.attention", {rows, attention.size(1)});
      at::index_select_out(selected, attention, 0, batch.target_rows);
      attention = selected;
      x = workspace_.Get("selected.x", {rows, config.hidden});
      at::index_select_out(x, saved.x, 0, batch.target_rows);
    }
    delta = workspace_.Get("delta", {rows, config.hidden});
    GroupForward(layer, kOut, attention, weights, adapter, saved.z[kOut], delta);

    input = Augmented(kGateUp, rows, weights);
    ops.RmsNorm(x, delta, model_.mlp_norms[layer], config.rms_epsilon, saved.x_mid,
                InputOf(input, kGateUp), saved.rstd_mlp);
    GroupForward(layer, kGateUp, input, weights, adapter, saved.z[kGateUp], saved.gate_up);
    at::Tensor activation = Augmented(kDownGroup, rows, weights);
    ops.SwiGlu(saved.gate_up, InputOf(activation, kDownGroup));
    GroupForward(layer, kDownGroup, activation, weights, adapter, saved.z[kDownGroup], delta);
    stream = saved.x_mid;
  }
  return {stream, delta};
}

at::Tensor Transformer::GroupBackward(int layer, Group group, const at::Tensor& dout,
                                      const at::Tensor& z, const LinearWeights& weights,
                                      const ActiveAdapter& adapter, const at::Tensor& gradients,
                                      bool only_tail) {
  const LoraLayout& layout = *adapter.layout;
  const GroupShape& shape = layout.group(group);
  const int64_t tail = layout.tail(group), rank = layout.rank();

  // B: the product over the stacked modules; only the blocks on the diagonal are gradients.
  at::Tensor products = workspace_.Get("gradient.b", {shape.out, tail});
  at::mm_out(products, dout.t(), z);
  int64_t row = 0;
  for (size_t m = 0; m < shape.modules.size(); ++m) {
    const int64_t out = shape.module_out[m];
    gradients.narrow(0, layout.b_offset(layer, group, static_cast<int>(m)), out * rank)
        .view({out, rank})
        .add_(products.narrow(0, row, out).narrow(1, static_cast<int64_t>(m) * rank, rank),
              adapter.scale);
    row += out;
  }

  at::Tensor result =
      workspace_.Get(absl::StrCat("gradient.augmented", group), {dout.size(0), shape.in + tail});
  const at::Tensor& matrix = weights.augmented(layer, group);
  at::Tensor dz = result.narrow(1, shape.in, tail);
  if (only_tail) {
    dz.copy_(at::mm(dout, matrix.narrow(1, shape.in, tail)));
    return result;
  }
  at::mm_out(result, dout, matrix);
  const at::Tensor a = adapter.values.narrow(0, layout.a_offset(layer, group), tail * shape.in)
                           .view({tail, shape.in});
  result.narrow(1, 0, shape.in).addmm_(dz, a);
  return result;
}

void Transformer::AddGradientOfA(int layer, Group group, const at::Tensor& dz,
                                 const at::Tensor& input, const ActiveAdapter& adapter,
                                 const at::Tensor& gradients) {
  const LoraLayout& layout = *adapter.layout;
  const int64_t tail = layout.tail(group), in = layout.group(group).in;
  at::Tensor products = workspace_.Get("gradient.a", {tail, in});
  at::mm_out(products, dz.t(), input);
  gradients.narrow(0, layout.a_offset(layer, group), tail * in).view({tail, in}).add_(products);
}

at::Tensor Transformer::BackwardMlp(int layer, const Saved& saved, const LinearWeights& weights,
                                    const ActiveAdapter& adapter, const at::Tensor& dx,
                                    const at::Tensor& gradients) {
  const Ops& ops = *model_.ops;
  const int64_t rows = dx.size(0);
  const at::Tensor ddown = GroupBackward(layer, kDownGroup, dx, saved.z[kDownGroup], weights,
                                         adapter, gradients, /*only_tail=*/false);
  const at::Tensor activation = InputOf(Augmented(kDownGroup, rows, weights), kDownGroup);
  ops.SwiGluBackward(saved.gate_up, InputOf(ddown, kDownGroup), activation);
  AddGradientOfA(layer, kDownGroup, TailOf(ddown, kDownGroup), activation, adapter, gradients);

  const at::Tensor dinput = GroupBackward(layer, kGateUp, saved.gate_up, saved.z[kGateUp], weights,
                                          adapter, gradients, /*only_tail=*/false);
  const at::Tensor input = InputOf(Augmented(kGateUp, rows, weights), kGateUp);
  ops.RmsNormAgain(saved.x_mid, model_.mlp_norms[layer], saved.rstd_mlp, input);
  AddGradientOfA(layer, kGateUp, TailOf(dinput, kGateUp), input, adapter, gradients);
  ops.RmsNormBackward(InputOf(dinput, kGateUp), saved.x_mid, model_.mlp_norms[layer],
                      saved.rstd_mlp, dx, dx);
  return dx;
}

at::Tensor Transformer::BackwardAttention(int layer, const PackedBatch& batch, const Saved& saved,
                                          const LinearWeights& weights,
                                          const ActiveAdapter& adapter, const at::Tensor& dx,
                                          const at::Tensor& gradients) {
  const Ops& ops = *model_.ops;
  at::Tensor residual = dx;
  at::Tensor dattention = GroupBackward(layer, kOut, dx, saved.z[kOut], weights, adapter, gradients,
                                        /*only_tail=*/false);
  at::Tensor attention = InputOf(Augmented(kOut, batch.tokens, weights), kOut);
  ops.JoinHeads(saved.heads, attention);
  if (SelectsRows(layer, batch)) {
    AddGradientOfA(layer, kOut, TailOf(dattention, kOut),
                   attention.index_select(0, batch.target_rows), adapter, gradients);
    // Back among all rows: the others had no part in the loss here.
    const auto scatter = [&](const char* name, const at::Tensor& source) {
      at::Tensor all = workspace_.Get(name, {batch.tokens, source.size(1)});
      all.zero_();
      all.index_copy_(0, batch.target_rows, source);
      return all;
    };
    dattention = scatter("scattered.attention", dattention);
    residual = scatter("dx", dx);
  } else {
    AddGradientOfA(layer, kOut, TailOf(dattention, kOut), attention, adapter, gradients);
  }

  at::Tensor dheads = workspace_.Get("dheads", saved.heads.sizes());
  at::Tensor delta = workspace_.Get("delta.heads", saved.heads.sizes().slice(0, 2), at::kFloat);
  ops.SplitHeads(InputOf(dattention, kOut), saved.heads, dheads, delta);
  at::Tensor dq = workspace_.Get("dq", saved.q.sizes());
  at::Tensor dk = workspace_.Get("dk", saved.k.sizes(), at::kFloat);
  at::Tensor dv = workspace_.Get("dv", saved.v.sizes(), at::kFloat);
  AttentionBackward(ops, batch, saved.q, saved.k, saved.v, saved.lse, dheads, delta, workspace_, dq,
                    dk, dv);
  at::Tensor dqkv = workspace_.Get("qkv", {batch.tokens, weights.augmented(layer, kQkv).size(0)});
  ops.JoinRotateBack(dq, dk, dv, batch.positions, model_.rotary, dqkv);

  const bool first = layer == 0;
  const at::Tensor dinput = GroupBackward(layer, kQkv, dqkv, saved.z[kQkv], weights, adapter,
                                          gradients, /*only_tail=*/first);
  const at::Tensor input = InputOf(Augmented(kQkv, batch.tokens, weights), kQkv);
  ops.RmsNormAgain(saved.x, model_.attention_norms[layer], saved.rstd_attention, input);
  AddGradientOfA(layer, kQkv, TailOf(dinput, kQkv), input, adapter, gradients);
  if (!first) {
    ops.RmsNormBackward(InputOf(dinput, kQkv), saved.x, model_.attention_norms[layer],
                        saved.rstd_attention, residual, residual);
  }
  return residual;
}

void Transformer::Backward(const PackedBatch& batch, const LinearWeights& weights,
                           const ActiveAdapter& adapter, const at::Tensor& dhidden,
                           const at::Tensor& gradients) {
  at::Tensor dx = dhidden;
  for (int layer = static_cast<int>(model_.config.layers) - 1; layer >= 0; --layer) {
    const Saved saved = SavedFor(layer, batch, &adapter, true);
    dx = BackwardMlp(layer, saved, weights, adapter, dx, gradients);
    dx = BackwardAttention(layer, batch, saved, weights, adapter, dx, gradients);
  }
}

}  // namespace ballast::worker
