// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cmath>
#include <memory>

#include "worker/train/ops.h"

namespace ballast::worker {
namespace {

using at::Tensor;

// x * cos - rotate_half(x) * sin by halves; sign -1 turns back. x: [..., D] float32.
Tensor Rotate(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

// Every computation is in float32 and rounds once when it is copied into the result.
class AtenOps final : public Ops {
 public:
  void RmsNorm(const Tensor& x, const Tensor& delta, const Tensor& weight, double epsilon,
               const Tensor& sum, const Tensor& out, const Tensor& rstd) const override {
    Tensor input = x;
    if (delta.defined()) {
      sum.copy_(x.to(at::kFloat) + delta.to(at::kFloat));
      input = sum;
    }
    const Tensor wide = input.to(at::kFloat);
    rstd.copy_(at::rsqrt(wide.square().mean(1) + epsilon));
    out.copy_(wide * rstd.unsqueeze(1) * weight);
  }

  void RmsNormAgain(const Tensor& x, const Tensor& weight, const Tensor& rstd,
                    const Tensor& out) const override {
    out.copy_(x.to(at::kFloat) * rstd.unsqueeze(1) * weight);
  }

  void RmsNormBackward(const Tensor& dout, const Tensor& x, const Tensor& weight,
                       const Tensor& rstd, const Tensor& residual,
                       const Tensor& dx) const override {
    const Tensor g = dout.to(at::kFloat) * weight;
    const Tensor wide = x.to(at::kFloat);
    const Tensor r = rstd.unsqueeze(1);
    Tensor result = r * (g - wide * (g * wide).mean(1, true) * r.square());
    if (residual.defined()) result += residual.to(at::kFloat);
    dx.copy_(result);
  }

  void SplitRotate(const Tensor& qkv, const Tensor& positions, const RotaryTable& table,
                   const Tensor& q, const Tensor& k, const Tensor& v) const override {
    const int64_t groups = k.size(0), rows = k.size(1), d = k.size(2), repeat = q.size(1) / rows;
    const Tensor cos = table.cos.index_select(0, positions),
                 sin = table.sin.index_select(0, positions);
    const Tensor wide = qkv.to(at::kFloat);
    const auto parts = wide.split_with_sizes({groups * repeat * d, groups * d, groups * d}, 1);
    const Tensor query = parts[0].view({rows, groups, repeat, d}).permute({1, 0, 2, 3});
    q.view({groups, rows, repeat, d}).copy_(Rotate(query, cos.unsqueeze(1), sin.unsqueeze(1)));
    k.copy_(Rotate(parts[1].view({rows, groups, d}).transpose(0, 1), cos, sin));
    v.copy_(parts[2].view({rows, groups, d}).transpose(0, 1));
  }

  void JoinRotateBack(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& positions,
                      const RotaryTable& table, const Tensor& dqkv) const override {
    const int64_t groups = dk.size(0), rows = dk.size(1), d = dk.size(2),
                  repeat = dq.size(1) / rows;
    const Tensor cos = table.cos.index_select(0, positions),
                 sin = -table.sin.index_select(0, positions);
    const Tensor query = Rotate(dq.to(at::kFloat).view({groups, rows, repeat, d}), cos.unsqueeze(1),
                                sin.unsqueeze(1));
    dqkv.copy_(at::cat({query.permute({1, 0, 2, 3}).reshape({rows, -1}),
                        Rotate(dk, cos, sin).transpose(0, 1).reshape({rows, -1}),
                        dv.transpose(0, 1).reshape({rows, -1})},
                       1));
  }

  void JoinHeads(const Tensor& heads, const Tensor& out) const override {
    const int64_t groups = heads.size(0), rows = out.size(0);
    out.copy_(heads.view({groups, rows, -1}).transpose(0, 1).reshape({rows, -1}));
  }

  void SplitHeads(const Tensor& dout, const Tensor& heads, const Tensor& dheads,
                  const Tensor& delta) const override {
    const int64_t groups = heads.size(0), rows = dout.size(0);
    dheads.view({groups, rows, -1}).copy_(dout.reshape({rows, groups, -1}).transpose(0, 1));
    delta.copy_((dheads.to(at::kFloat) * heads.to(at::kFloat)).sum(2));
  }

  void Softmax(const Tensor& scores, const Tensor& first, int64_t query0, int64_t repeat,
               double scale, const Tensor& lse) const override {
    const Tensor wide = (scores.to(at::kFloat) * scale)
                            .masked_fill(Hidden(scores, first, query0, repeat), -INFINITY);
    lse.copy_(at::logsumexp(wide, -1));
    scores.copy_(at::softmax(wide, -1));
  }

  void SoftmaxBackward(const Tensor& scores, const Tensor& dprobabilities, const Tensor& first,
                       int64_t query0, int64_t repeat, double scale, const Tensor& lse,
                       const Tensor& delta) const override {
    const Tensor hidden = Hidden(scores, first, query0, repeat);
    const Tensor p =
        at::exp(scores.to(at::kFloat) * scale - lse.unsqueeze(-1)).masked_fill(hidden, 0.0);
    dprobabilities.copy_((p * (dprobabilities.to(at::kFloat) - delta.unsqueeze(-1)) * scale)
                             .masked_fill(hidden, 0.0));
    scores.copy_(p);
  }

  void SwiGlu(const Tensor& gate_up, const Tensor& out) const override {
    const auto parts = gate_up.to(at::kFloat).chunk(2, 1);
    out.copy_(at::silu(parts[0]) * parts[1]);
  }

  void SwiGluBackward(const Tensor& gate_up, const Tensor& dout, const Tensor& out) const override {
    const auto parts = gate_up.to(at::kFloat).chunk(2, 1);
    const Tensor wide = dout.to(at::kFloat);
    const Tensor sigmoid = at::sigmoid(parts[0]);
    const Tensor silu = parts[0] * sigmoid;
    out.copy_(silu * parts[1]);
    gate_up.copy_(
        at::cat({wide * parts[1] * sigmoid * (1.0 + parts[0] * (1.0 - sigmoid)), wide * silu}, 1));
  }

  void CrossEntropy(const Tensor& logits, const Tensor& targets, const Tensor& coefficients,
                    const Tensor& losses) const override {
    const Tensor log_p = at::log_softmax(logits.to(at::kFloat), 1);
    const Tensor column = targets.unsqueeze(1);
    losses.copy_(-log_p.gather(1, column).squeeze(1));
    if (!coefficients.defined()) return;
    Tensor gradient = log_p.exp();
    gradient.scatter_add_(1, column, at::full_like(column, -1, gradient.options()));
    logits.copy_(gradient * coefficients.unsqueeze(1));
  }

  void KlDivergence(const Tensor& logits, const Tensor& base, const Tensor& coefficients,
                    const Tensor& divergences) const override {
    const Tensor log_p = at::log_softmax(base.to(at::kFloat), 1);
    const Tensor log_q = at::log_softmax(logits.to(at::kFloat), 1);
    const Tensor p = log_p.exp();
    divergences.copy_((p * (log_p - log_q)).sum(1));
    if (coefficients.defined()) logits.copy_((log_q.exp() - p) * coefficients.unsqueeze(1));
  }

  void AdamW(const Tensor& parameters, const Tensor& gradients, const Tensor& m, const Tensor& v,
             const Tensor& copy, const AdamWStep& step) const override {
    const double correction1 = 1.0 - std::pow(static_cast<double>(step.beta1), step.step);
    const double correction2 = 1.0 - std::pow(static_cast<double>(step.beta2), step.step);
    const Tensor g = gradients * step.clip;
    m.mul_(step.beta1).add_(g, 1.0f - step.beta1);
    v.mul_(step.beta2).addcmul_(g, g, 1.0f - step.beta2);
    parameters.mul_(1.0f - step.learning_rate * step.weight_decay);
    parameters.addcdiv_(m, v.sqrt().div_(std::sqrt(correction2)).add_(step.epsilon),
                        -step.learning_rate / correction1);
    copy.copy_(parameters);
  }

 private:
  // True where a column is not seen: [rows, columns].
  static Tensor Hidden(const Tensor& scores, const Tensor& first, int64_t query0, int64_t repeat) {
    const auto options = first.options();
    const Tensor query =
        (at::arange(scores.size(1), options).floor_divide(repeat) + query0).unsqueeze(1);
    const Tensor column = at::arange(scores.size(2), options).unsqueeze(0);
    return (column < first.index_select(0, query.squeeze(1)).unsqueeze(1))
        .logical_or(column > query);
  }
};

}  // namespace

std::unique_ptr<Ops> MakeAtenOps() { return std::make_unique<AtenOps>(); }

}  // namespace ballast::worker
