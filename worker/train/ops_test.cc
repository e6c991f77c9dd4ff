// SPDX-License-Identifier: Apache-2.0
// Every fused pass, in each instruction set and type, against the same operation in plain ATen.
#include "worker/train/ops.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <memory>
#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker {
namespace {

using at::Tensor;

class OpsTest : public ::testing::TestWithParam<std::tuple<std::string, bool>> {
 protected:
  void SetUp() override {
    fused_ = MakeFusedCpuOps(std::get<0>(GetParam()).c_str());
    if (fused_ == nullptr) GTEST_SKIP() << "this processor lacks " << std::get<0>(GetParam());
    bf16_ = std::get<1>(GetParam());
    at::manual_seed(7);
  }

  at::TensorOptions T() const {
    return at::TensorOptions().dtype(bf16_ ? at::kBFloat16 : at::kFloat);
  }
  Tensor Random(at::IntArrayRef shape) const { return at::randn(shape, at::kFloat).to(T()); }
  static Tensor RandomFloat(at::IntArrayRef shape) { return at::randn(shape, at::kFloat); }

  // One rounding of T, and a little for a sum taken in another order.
  void ExpectClose(const Tensor& actual, const Tensor& expected, const char* what) const {
    const Tensor a = actual.to(at::kDouble), e = expected.to(at::kDouble);
    const double tolerance = actual.scalar_type() == at::kBFloat16 ? 0.008 : 2e-5;
    EXPECT_TRUE(at::isfinite(a).all().item<bool>()) << what;
    const double error = ((a - e).abs() / (e.abs() + e.abs().mean() + 1e-12)).max().item<double>();
    EXPECT_LT(error, tolerance) << what;
  }

  const c10::InferenceMode guard_;
  std::unique_ptr<Ops> fused_, aten_ = MakeAtenOps();
  bool bf16_ = false;
  // Odd sizes: every loop has a remainder.
  const int64_t rows_ = 37, n_ = 75;
};

TEST_P(OpsTest, RmsNorm) {
  const Tensor x = Random({rows_, n_}), delta = Random({rows_, n_}), weight = RandomFloat({n_});
  for (const bool with_delta : {false, true}) {
    Tensor sum[2], out[2], rstd[2];
    for (int i = 0; i < 2; ++i) {
      sum[i] = at::zeros({rows_, n_}, T());
      out[i] = at::full({rows_, n_ + 5}, 3, T());
      rstd[i] = at::zeros({rows_}, at::kFloat);
      (i == 0 ? fused_ : aten_)
          ->RmsNorm(x, with_delta ? delta : Tensor(), weight, 1e-5, sum[i], out[i].narrow(1, 0, n_),
                    rstd[i]);
    }
    ExpectClose(out[0], out[1], "out");  // the five columns beyond are untouched
    ExpectClose(rstd[0], rstd[1], "rstd");
    if (with_delta) ExpectClose(sum[0], sum[1], "sum");
  }
}

TEST_P(OpsTest, RmsNormAgainEqualsTheFirst) {
  const Tensor x = Random({rows_, n_}), weight = RandomFloat({n_}),
               rstd = at::zeros({rows_}, at::kFloat);
  const Tensor first = at::zeros({rows_, n_ + 3}, T()), again = at::zeros({rows_, n_ + 3}, T());
  fused_->RmsNorm(x, Tensor(), weight, 1e-5, Tensor(), first.narrow(1, 0, n_), rstd);
  fused_->RmsNormAgain(x, weight, rstd, again.narrow(1, 0, n_));
  EXPECT_TRUE(at::equal(first, again));
}

TEST_P(OpsTest, RmsNormBackward) {
  const Tensor x = Random({rows_, n_}), dout = Random({rows_, n_ + 4}), weight = RandomFloat({n_});
  const Tensor residual = Random({rows_, n_});
  const Tensor rstd = at::rsqrt(x.to(at::kFloat).square().mean(1) + 1e-5);
  for (const bool with_residual : {false, true}) {
    Tensor dx[2];
    for (int i = 0; i < 2; ++i) {
      dx[i] = at::zeros({rows_, n_}, T());
      (i == 0 ? fused_ : aten_)
          ->RmsNormBackward(dout.narrow(1, 0, n_), x, weight, rstd,
                            with_residual ? residual : Tensor(), dx[i]);
    }
    ExpectClose(dx[0], dx[1], "dx");
  }
}

TEST_P(OpsTest, RotaryAndHeads) {
  const int64_t groups = 2, repeat = 3, d = 10;
  const Tensor qkv = Random({rows_, (repeat + 2) * groups * d});
  const Tensor positions = at::arange(rows_, at::kInt).remainder(11);
  const Tensor angle = RandomFloat({16, d / 2});
  const RotaryTable table{at::cos(angle), at::sin(angle)};
  Tensor q[2], k[2], v[2], dqkv[2], joined[2], dheads[2], delta[2];
  const Tensor dk = RandomFloat({groups, rows_, d}), dv = RandomFloat({groups, rows_, d});
  const Tensor dq = Random({groups, rows_ * repeat, d}),
               dout = Random({rows_, groups * repeat * d + 6});
  for (int i = 0; i < 2; ++i) {
    const Ops& ops = i == 0 ? *fused_ : *aten_;
    q[i] = at::zeros({groups, rows_ * repeat, d}, T());
    k[i] = at::zeros({groups, rows_, d}, T());
    v[i] = at::zeros({groups, rows_, d}, T());
    ops.SplitRotate(qkv, positions, table, q[i], k[i], v[i]);
    dqkv[i] = at::zeros_like(qkv);
    ops.JoinRotateBack(dq, dk, dv, positions, table, dqkv[i]);
    joined[i] = at::zeros({rows_, groups * repeat * d + 2}, T());
    ops.JoinHeads(q[i], joined[i].narrow(1, 0, groups * repeat * d));
    dheads[i] = at::zeros_like(q[i]);
    delta[i] = at::zeros({groups, rows_ * repeat}, at::kFloat);
    ops.SplitHeads(dout.narrow(1, 0, groups * repeat * d), q[i], dheads[i], delta[i]);
  }
  ExpectClose(q[0], q[1], "q");
  ExpectClose(k[0], k[1], "k");
  ExpectClose(v[0], v[1], "v");
  ExpectClose(dqkv[0], dqkv[1], "dqkv");
  ExpectClose(joined[0], joined[1], "joined");
  ExpectClose(dheads[0], dheads[1], "dheads");
  // delta sums products of values that were rounded differently.
  EXPECT_LT((delta[0] - delta[1]).abs().max().item<double>(), bf16_ ? 0.1 : 1e-4);
}

TEST_P(OpsTest, SoftmaxAndItsGradient) {
  const int64_t heads = 2, repeat = 2, queries = 9, query0 = 20, columns = query0 + queries;
  const Tensor first =
      at::arange(columns, at::kInt).floor_divide(12) * 12;  // documents of 12 tokens
  const Tensor input = Random({heads, queries * repeat, columns}) * 3;
  const Tensor upstream = Random({heads, queries * repeat, columns});
  const Tensor delta = RandomFloat({heads, queries * repeat});
  Tensor p[2], lse[2], s[2], dp[2];
  for (int i = 0; i < 2; ++i) {
    const Ops& ops = i == 0 ? *fused_ : *aten_;
    p[i] = input.clone();
    lse[i] = at::zeros({heads, queries * repeat}, at::kFloat);
    ops.Softmax(p[i], first, query0, repeat, 0.3, lse[i]);
    s[i] = input.clone();
    dp[i] = upstream.clone();
    ops.SoftmaxBackward(s[i], dp[i], first, query0, repeat, 0.3, lse[0], delta);
  }
  ExpectClose(p[0], p[1], "probabilities");
  ExpectClose(lse[0], lse[1], "lse");
  ExpectClose(s[0], s[1], "probabilities again");
  ExpectClose(dp[0], dp[1], "dscores");
  EXPECT_EQ(p[0].index({0, 0}).narrow(0, 0, 12).abs().sum().item<double>(), 0)
      << "another document";
  EXPECT_EQ(p[0].index({0, 0}).narrow(0, query0 + 1, queries - 1).abs().sum().item<double>(), 0)
      << "the future";
}

TEST_P(OpsTest, SwiGluAndItsGradient) {
  const Tensor gate_up = Random({rows_, 2 * n_}) * 4, dout = Random({rows_, n_ + 1});
  Tensor out[2], gradient[2], again[2];
  for (int i = 0; i < 2; ++i) {
    const Ops& ops = i == 0 ? *fused_ : *aten_;
    out[i] = at::zeros({rows_, n_ + 7}, T());
    again[i] = at::zeros({rows_, n_ + 7}, T());
    ops.SwiGlu(gate_up, out[i].narrow(1, 0, n_));
    gradient[i] = gate_up.clone();
    ops.SwiGluBackward(gradient[i], dout.narrow(1, 0, n_), again[i].narrow(1, 0, n_));
  }
  ExpectClose(out[0], out[1], "out");
  ExpectClose(again[0], again[1], "out again");
  ExpectClose(gradient[0], gradient[1], "gradient");
}

TEST_P(OpsTest, LossesAndTheirGradients) {
  const Tensor logits = Random({rows_, n_}) * 5, base = Random({rows_, n_}) * 5;
  const Tensor targets = at::randint(n_, {rows_}, at::kLong),
               coefficients = RandomFloat({rows_}).abs();
  for (const bool gradient : {false, true}) {
    Tensor losses[2], divergences[2], dl[2], dk[2];
    for (int i = 0; i < 2; ++i) {
      const Ops& ops = i == 0 ? *fused_ : *aten_;
      losses[i] = at::zeros({rows_}, at::kFloat);
      divergences[i] = at::zeros({rows_}, at::kFloat);
      dl[i] = logits.clone();
      dk[i] = logits.clone();
      ops.CrossEntropy(dl[i], targets, gradient ? coefficients : Tensor(), losses[i]);
      ops.KlDivergence(dk[i], base, gradient ? coefficients : Tensor(), divergences[i]);
    }
    ExpectClose(losses[0], losses[1], "loss");
    ExpectClose(divergences[0], divergences[1], "divergence");
    ExpectClose(dl[0], dl[1], "gradient of the loss");
    ExpectClose(dk[0], dk[1], "gradient of the divergence");
  }
}

// A head of real size, against float64. In the second row one token has nearly everything and
// 131,071 tokens share 0.3 %: each is too little to change a float32 sum that has the one.
TEST_P(OpsTest, NoTokenOfALargeVocabularyIsDropped) {
  const int64_t n = 131072;
  const Tensor logits = RandomFloat({2, n}).to(T()), base = RandomFloat({2, n}).to(T());
  for (const Tensor& t : {logits, base}) {
    t[1].fill_(-17.5f);
    t[1][3].fill_(0.0f);
  }
  base[1][3].fill_(0.5f);
  const Tensor targets = at::tensor({5, 3}, at::kLong);
  const Tensor losses = at::zeros({2}, at::kFloat), divergences = at::zeros({2}, at::kFloat);
  fused_->CrossEntropy(logits.clone(), targets, Tensor(), losses);
  fused_->KlDivergence(logits.clone(), base, Tensor(), divergences);

  const Tensor log_p = logits.to(at::kDouble).log_softmax(-1);
  const Tensor log_b = base.to(at::kDouble).log_softmax(-1);
  const Tensor expected = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
  const Tensor divergence = (log_b.exp() * (log_b - log_p)).sum(-1);
  EXPECT_LT((losses - expected).abs().max().item<double>(), 1e-5);
  EXPECT_LT((divergences - divergence).abs().max().item<double>(), 1e-5);
}

TEST_P(OpsTest, NotANumberStaysOne) {
  const Tensor logits = Random({3, n_});
  logits.index({1, 4}).fill_(std::nan(""));
  const Tensor losses = at::zeros({3}, at::kFloat), coefficients = at::ones({3}, at::kFloat);
  fused_->CrossEntropy(logits, at::zeros({3}, at::kLong), coefficients, losses);
  EXPECT_TRUE(std::isfinite(losses[0].item<float>()));
  EXPECT_TRUE(std::isnan(losses[1].item<float>()));
  const Tensor gate_up = at::full({1, 2 * n_}, std::nan(""), T()), out = at::zeros({1, n_}, T());
  fused_->SwiGlu(gate_up, out);
  EXPECT_TRUE(at::isnan(out).all().item<bool>());
}

TEST_P(OpsTest, AdamW) {
  const int64_t size = 1003;
  const Tensor start = RandomFloat({size});
  Tensor p[2], m[2], v[2], copy[2];
  for (int i = 0; i < 2; ++i) {
    p[i] = start.clone();
    m[i] = at::zeros({size}, at::kFloat);
    v[i] = at::zeros({size}, at::kFloat);
    copy[i] = at::zeros({size}, T());
  }
  for (int step = 1; step <= 5; ++step) {
    const Tensor gradient = RandomFloat({size});
    for (int i = 0; i < 2; ++i) {
      (i == 0 ? fused_ : aten_)
          ->AdamW(p[i], gradient, m[i], v[i], copy[i],
                  {.clip = 0.7f, .learning_rate = 0.05f, .weight_decay = 0.1f, .step = step});
    }
  }
  ExpectClose(p[0], p[1], "parameters");
  ExpectClose(m[0], m[1], "m");
  ExpectClose(v[0], v[1], "v");
  ExpectClose(copy[0], copy[1], "copy");
  EXPECT_GT((p[0] - start).abs().mean().item<double>(), 0.05);
}

INSTANTIATE_TEST_SUITE_P(All, OpsTest,
                         ::testing::Combine(::testing::Values("generic", "avx2", "avx512"),
                                            ::testing::Bool()),
                         [](const auto& info) {
                           return std::get<0>(info.param) +
                                  (std::get<1>(info.param) ? "Bf16" : "Fp32");
                         });

}  // namespace
}  // namespace ballast::worker
