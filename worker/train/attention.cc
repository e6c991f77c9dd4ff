// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace ballast::worker {
namespace {

// Queries per block. Larger blocks waste products on hidden keys, smaller ones are slower to start.
constexpr int64_t kBlock = 128;

// One block of a segment: queries [begin, end) of the packed batch see keys [keys_begin, end).
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

}  // namespace

void AttentionForward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                      const at::Tensor& k, const at::Tensor& v, Workspace& workspace,
                      const at::Tensor& heads, const at::Tensor& lse) {
  const int64_t groups = k.size(0), repeat = q.size(1) / batch.tokens;
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
    ops.Softmax(scores, batch.first.narrow(0, block.keys_begin, block.keys()),
                block.begin - block.keys_begin, repeat, scale, queries(lse));
    at::Tensor out = queries(heads);
    at::bmm_out(out, scores, keys(v));
  });
}

void AttentionBackward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                       const at::Tensor& k, const at::Tensor& v, const at::Tensor& lse,
                       const at::Tensor& dheads, const at::Tensor& delta, Workspace& workspace,
                       const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
  const int64_t groups = k.size(0), repeat = q.size(1) / batch.tokens, d = k.size(2);
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
    ops.SoftmaxBackward(scores, dscores, batch.first.narrow(0, block.keys_begin, block.keys()),
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

}  // namespace ballast::worker
