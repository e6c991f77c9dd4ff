// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace ballast::worker {
namespace {

// Queries per block. Larger blocks waste products on hidden keys, smaller ones are slower to start.
constexpr int64_t kBlock = 128;

// One block of a segment: queries at the places [begin, end) see keys at [keys_begin, end).
struct Block {
  int64_t keys_begin, begin, end;
  int64_t queries() const { return end - begin; }
  int64_t keys() const { return end - keys_begin; }
};

template <typename Function>
void ForEachBlock(const PackedBatch& batch, const Function& function) {
  for (const Segment& segment : batch.segments) {
    for (int64_t begin = segment.begin; begin < segment.end; begin += kBlock) {
      function(Block{segment.begin, begin, std::min(begin + kBlock, segment.end)});
    }
  }
}

// As AttentionForward, with all tensors by place.
void ForwardByPlace(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v, Workspace& workspace,
                    const at::Tensor& heads, const at::Tensor& lse) {
  const int64_t groups = k.size(0), repeat = q.size(1) / batch.places;
  const double scale = 1.0 / std::sqrt(static_cast<double>(k.size(2)));
  ForEachBlock(batch, [&](const Block& block) {
    const int64_t rows = block.queries() * repeat;
    const auto queries = [&](const at::Tensor& t) {
      return t.narrow(1, block.begin * repeat, rows);
    };
    const auto keys = [&](const at::Tensor& t) {
      return t.narrow(1, block.keys_begin, block.keys());
    };
    at::Tensor scores = workspace.Get("attention.scores", {groups, rows, block.keys()});
    at::bmm_out(scores, queries(q), keys(k).transpose(1, 2));
    ops.Softmax(scores, batch.row_begin.narrow(0, block.keys_begin, block.keys()),
                block.begin - block.keys_begin, repeat, scale, queries(lse));
    at::Tensor out = queries(heads);
    at::bmm_out(out, scores, keys(v));
  });
}

// As AttentionBackward, with all tensors by place.
void BackwardByPlace(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                     const at::Tensor& k, const at::Tensor& v, const at::Tensor& lse,
                     const at::Tensor& dheads, const at::Tensor& delta, Workspace& workspace,
                     const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
  const int64_t groups = k.size(0), repeat = q.size(1) / batch.places, d = k.size(2);
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  dk.zero_();
  dv.zero_();
  ForEachBlock(batch, [&](const Block& block) {
    const int64_t rows = block.queries() * repeat;
    const auto queries = [&](const at::Tensor& t) {
      return t.narrow(1, block.begin * repeat, rows);
    };
    const auto keys = [&](const at::Tensor& t) {
      return t.narrow(1, block.keys_begin, block.keys());
    };
    at::Tensor scores = workspace.Get("attention.scores", {groups, rows, block.keys()});
    at::Tensor dscores = workspace.Get("attention.dscores", {groups, rows, block.keys()});
    at::bmm_out(scores, queries(q), keys(k).transpose(1, 2));
    at::bmm_out(dscores, queries(dheads), keys(v).transpose(1, 2));
    ops.SoftmaxBackward(scores, dscores, batch.row_begin.narrow(0, block.keys_begin, block.keys()),
                        block.begin - block.keys_begin, repeat, scale, queries(lse),
                        queries(delta));
    at::Tensor block_dq = queries(dq);
    at::bmm_out(block_dq, dscores, keys(k));
    // A key gets its gradient from several blocks: the sum is kept in float32.
    at::Tensor part = workspace.Get("attention.part", {groups, block.keys(), d});
    at::bmm_out(part, scores.transpose(1, 2), queries(dheads));
    keys(dv).add_(part);
    at::bmm_out(part, dscores.transpose(1, 2), queries(q));
    keys(dk).add_(part);
  });
}

// `t` [G, n * width, ..] as [G, n, ..]: one row of numbers for each of `count` tokens or places.
at::Tensor PerToken(const at::Tensor& t, int64_t count) { return t.view({t.size(0), count, -1}); }

// to [G, index, ..] = from [G, count, ..] at `index`.
void Gather(const at::Tensor& from, int64_t count, const at::Tensor& index, const at::Tensor& to) {
  at::Tensor target = PerToken(to, index.size(0));
  at::index_select_out(target, PerToken(from, count), 1, index);
}

// Queries, keys and values by place.
struct WrittenOut {
  at::Tensor q, k, v;

  WrittenOut(const PackedBatch& batch, const at::Tensor& of_q, const at::Tensor& of_k,
             const at::Tensor& of_v, Workspace& workspace) {
    const int64_t groups = of_k.size(0), d = of_k.size(2), repeat = of_q.size(1) / batch.tokens;
    q = workspace.Get("attention.q", {groups, batch.places * repeat, d});
    k = workspace.Get("attention.k", {groups, batch.places, d});
    v = workspace.Get("attention.v", {groups, batch.places, d});
    Gather(of_q, batch.tokens, batch.token_at, q);
    Gather(of_k, batch.tokens, batch.token_at, k);
    Gather(of_v, batch.tokens, batch.token_at, v);
  }
};

}  // namespace

void AttentionForward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                      const at::Tensor& k, const at::Tensor& v, Workspace& workspace,
                      const at::Tensor& heads, const at::Tensor& lse) {
  if (!batch.token_at.defined()) {
    ForwardByPlace(ops, batch, q, k, v, workspace, heads, lse);
    return;
  }
  const WrittenOut rows(batch, q, k, v, workspace);
  const at::Tensor row_heads = workspace.Get("attention.heads", rows.q.sizes());
  ForwardByPlace(ops, batch, rows.q, rows.k, rows.v, workspace, row_heads, lse);
  // A shared token's heads are the same in each of its rows.
  Gather(row_heads, batch.places, batch.first_place, heads);
}

void AttentionBackward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                       const at::Tensor& k, const at::Tensor& v, const at::Tensor& lse,
                       const at::Tensor& dheads, const at::Tensor& delta, Workspace& workspace,
                       const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
  if (!batch.token_at.defined()) {
    BackwardByPlace(ops, batch, q, k, v, lse, dheads, delta, workspace, dq, dk, dv);
    return;
  }
  const WrittenOut rows(batch, q, k, v, workspace);
  // The gradient of a shared token's heads belongs to one of its places, or it would count twice.
  const auto at_first_place = [&](const char* name, const at::Tensor& of_tokens,
                                  at::IntArrayRef shape) {
    at::Tensor of_places = workspace.Get(name, shape, of_tokens.scalar_type()).zero_();
    PerToken(of_places, batch.places)
        .index_copy_(1, batch.first_place, PerToken(of_tokens, batch.tokens));
    return of_places;
  };
  const at::Tensor row_dheads = at_first_place("attention.dheads", dheads, rows.q.sizes());
  const at::Tensor row_delta = at_first_place("attention.delta", delta, lse.sizes());
  const at::Tensor row_dq = workspace.Get("attention.dq", rows.q.sizes());
  const at::Tensor row_dk = workspace.Get("attention.dk", rows.k.sizes(), at::kFloat);
  const at::Tensor row_dv = workspace.Get("attention.dv", rows.v.sizes(), at::kFloat);
  BackwardByPlace(ops, batch, rows.q, rows.k, rows.v, lse, row_dheads, row_delta, workspace, row_dq,
                  row_dk, row_dv);
  Gather(row_dq, batch.places, batch.first_place, dq);
  // Keys and values of a shared token were used by all its rows. In order, so that the sum is the
  // same each time.
  const auto add_up = [&](const at::Tensor& of_places, const at::Tensor& of_tokens) {
    at::Tensor sum = of_tokens;
    sum.zero_();
    at::index_put_(sum, {std::nullopt, batch.token_at}, of_places, /*accumulate=*/true);
  };
  add_up(row_dk, dk);
  add_up(row_dv, dv);
}

}  // namespace ballast::worker
