// SPDX-License-Identifier: Apache-2.0
// What the model does between matrix products, over tensors: normalisation, rotary embedding,
// softmax, SwiGLU, the losses, AdamW. Two implementations: FusedCpuOps (one pass each, the hot path
// on a CPU) and AtenOps (plain ATen, any device; also the reference of the tests).
//
// T is the engine's compute type, float or bfloat16. Letters: M rows (tokens of a micro-batch), H
// hidden, G key/value heads, P query heads of each ("repeat"), D head size, V vocabulary. "Strided"
// arguments are the first columns of a wider matrix; all others are dense.
#ifndef BALLAST_WORKER_TRAIN_OPS_H_
#define BALLAST_WORKER_TRAIN_OPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "worker/train/rotary.h"

namespace ballast::worker {

struct AdamWStep {
  float clip = 1.0f;  // multiplies the gradients
  float learning_rate = 0;
  float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0;
  int64_t step = 1;  // counted from 1, for the bias corrections
};

// Thread safety: stateless; parallel inside.
class Ops {
 public:
  virtual ~Ops() = default;

  // sum [M, H] = x + delta where delta is defined, else x is normed itself and `sum` unused.
  // out (strided) [M, H] = sum * rstd * weight (float32 [H]); rstd float32 [M].
  virtual void RmsNorm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                       double epsilon, const at::Tensor& sum, const at::Tensor& out,
                       const at::Tensor& rstd) const = 0;
  // out (strided) once more from x and rstd.
  virtual void RmsNormAgain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                            const at::Tensor& out) const = 0;
  // dx [M, H] = residual (if defined; may be dx) + gradient through the norm of dout (strided).
  virtual void RmsNormBackward(const at::Tensor& dout, const at::Tensor& x,
                               const at::Tensor& weight, const at::Tensor& rstd,
                               const at::Tensor& residual, const at::Tensor& dx) const = 0;

  // qkv [M, (P + 2) G D] to q [G, M * P, D], k and v [G, M, D]; q and k rotated. positions: int32
  // [M].
  virtual void SplitRotate(const at::Tensor& qkv, const at::Tensor& positions,
                           const RotaryTable& table, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) const = 0;
  // The gradient of SplitRotate; dk and dv are float32.
  virtual void JoinRotateBack(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                              const at::Tensor& positions, const RotaryTable& table,
                              const at::Tensor& dqkv) const = 0;
  // heads [G, M * P, D] to out (strided) [M, G P D].
  virtual void JoinHeads(const at::Tensor& heads, const at::Tensor& out) const = 0;
  // dout (strided) to dheads, and delta float32 [G, M * P] = sum over D of dout * heads.
  virtual void SplitHeads(const at::Tensor& dout, const at::Tensor& heads, const at::Tensor& dheads,
                          const at::Tensor& delta) const = 0;

  // Causal softmax within documents, in place on scores [G, R, C]: row r belongs to query query0 +
  // r / P of a segment and sees the columns first[query] .. query (int32 [segment tokens]); others
  // become zero. lse [G, R] float32 (row stride as given) = log of the sum of exp(scale * score).
  virtual void Softmax(const at::Tensor& scores, const at::Tensor& first, int64_t query0,
                       int64_t repeat, double scale, const at::Tensor& lse) const = 0;
  // Replaces scores by probabilities and dprobabilities by the gradient of the unscaled scores.
  virtual void SoftmaxBackward(const at::Tensor& scores, const at::Tensor& dprobabilities,
                               const at::Tensor& first, int64_t query0, int64_t repeat,
                               double scale, const at::Tensor& lse,
                               const at::Tensor& delta) const = 0;

  // gate_up [M, 2F] to out (strided) [M, F] = silu(gate) * up.
  virtual void SwiGlu(const at::Tensor& gate_up, const at::Tensor& out) const = 0;
  // gate_up becomes its gradient; out (strided) gets silu(gate) * up once more.
  virtual void SwiGluBackward(const at::Tensor& gate_up, const at::Tensor& dout,
                              const at::Tensor& out) const = 0;

  // losses float32 [N] of logits [N, V] and targets int64 [N]; with coefficients float32 [N],
  // logits become coefficient * gradient of each loss.
  virtual void CrossEntropy(const at::Tensor& logits, const at::Tensor& targets,
                            const at::Tensor& coefficients, const at::Tensor& losses) const = 0;
  // divergences float32 [N] = KL(softmax(base) || softmax(logits)); coefficients as above.
  virtual void KlDivergence(const at::Tensor& logits, const at::Tensor& base,
                            const at::Tensor& coefficients,
                            const at::Tensor& divergences) const = 0;

  // Updates float32 parameters, m, v in place; copy (T) gets the new parameters.
  virtual void AdamW(const at::Tensor& parameters, const at::Tensor& gradients, const at::Tensor& m,
                     const at::Tensor& v, const at::Tensor& copy, const AdamWStep& step) const = 0;
};

// The implementation for tensors of `device`.
std::unique_ptr<Ops> MakeOps(const at::Device& device);
std::unique_ptr<Ops> MakeAtenOps();
// `instructions` as in KernelsFor; null when the processor lacks them.
std::unique_ptr<Ops> MakeFusedCpuOps(const char* instructions);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_OPS_H_
