// SPDX-License-Identifier: Apache-2.0
// The fused passes over rows between the matrix products, as tables of function pointers: one table
// per element type and instruction set, so that one binary runs on any x86-64 and uses what the
// processor has.
//
// The tables are made by compiling kernels_impl.h once per instruction set; that code must include
// no library header, or the linker might keep a copy of an inline function that older processors
// cannot run.
//
// Conventions: T is float or Bf16; arithmetic is float throughout and each result is rounded once.
// Strides are in elements. A function works on rows [begin, end), the caller splits them over
// threads; rows are independent, so results do not depend on the number of threads.
#ifndef BALLAST_WORKER_TRAIN_KERNELS_H_
#define BALLAST_WORKER_TRAIN_KERNELS_H_

#include <stdint.h>

namespace ballast::worker {

// bfloat16: the upper half of a float.
struct Bf16 {
  uint16_t bits;
};

template <typename T>
struct Kernels {
  const char* name;  // "avx512", "avx2" or "generic"

  // sum = x + delta (only where delta is not null), out = sum * rstd * weight,
  // rstd = 1 / sqrt(mean(sum^2) + epsilon). x, delta, sum are [rows, n] dense.
  void (*rms_norm)(const T* x, const T* delta, const float* weight, float epsilon, int64_t n,
                   T* sum, T* out, int64_t out_stride, float* rstd, int64_t begin, int64_t end);
  // out = x * rstd * weight with a known rstd: the norm's output once more, for the backward pass.
  void (*rms_norm_again)(const T* x, const float* weight, const float* rstd, int64_t n, T* out,
                         int64_t out_stride, int64_t begin, int64_t end);
  // dx = residual + d(rms_norm)/dx * dout; residual may be null; dx may be residual.
  void (*rms_norm_backward)(const T* dout, int64_t dout_stride, const T* x, const float* weight,
                            const float* rstd, const T* residual, int64_t n, T* dx, int64_t begin,
                            int64_t end);

  // Rotary embedding by halves and the split of stacked q|k|v rows into
  // q [kv_heads, rows, repeat, d], k and v [kv_heads, rows, d]. cos, sin: [positions, d / 2].
  void (*split_rotate)(const T* qkv, const int32_t* positions, const float* cos, const float* sin,
                       int64_t rows, int64_t kv_heads, int64_t repeat, int64_t d, T* q, T* k, T* v,
                       int64_t begin, int64_t end);
  // The inverse: gradients of q, k, v (the latter two summed in float) back into stacked rows.
  void (*join_rotate_back)(const T* dq, const float* dk, const float* dv, const int32_t* positions,
                           const float* cos, const float* sin, int64_t rows, int64_t kv_heads,
                           int64_t repeat, int64_t d, T* dqkv, int64_t begin, int64_t end);
  // heads [kv_heads, rows, repeat, d] to out [rows, kv_heads * repeat * d].
  void (*join_heads)(const T* heads, int64_t rows, int64_t kv_heads, int64_t repeat, int64_t d,
                     T* out, int64_t out_stride, int64_t begin, int64_t end);
  // The inverse for the gradient, and delta = sum(dout * out) of each head, [kv_heads, rows,
  // repeat].
  void (*split_heads)(const T* dout, int64_t dout_stride, const T* out, int64_t rows,
                      int64_t kv_heads, int64_t repeat, int64_t d, T* dheads, float* delta,
                      int64_t begin, int64_t end);

  // Softmax of scale * scores over columns first[i] .. last_i of each row, zero elsewhere, in
  // place; row i is query token query0 + i / repeat, and last_i that token, both counted from the
  // columns' first token. lse[i] = log(sum(exp(scale * score))).
  void (*softmax)(T* scores, int64_t columns, int64_t stride, const int32_t* first, int64_t query0,
                  int64_t repeat, float scale, float* lse, int64_t begin, int64_t end);
  // From scores and dprobabilities: probabilities (over scores) and dscores (over dprobabilities).
  void (*softmax_backward)(T* scores, T* dprobabilities, int64_t columns, int64_t stride,
                           const int32_t* first, int64_t query0, int64_t repeat, float scale,
                           const float* lse, const float* delta, int64_t begin, int64_t end);

  // out = silu(gate) * up for stacked gate|up rows [rows, 2n].
  void (*swiglu)(const T* gate_up, int64_t n, T* out, int64_t out_stride, int64_t begin,
                 int64_t end);
  // Replaces gate|up by their gradients and writes out = silu(gate) * up once more.
  void (*swiglu_backward)(T* gate_up, const T* dout, int64_t dout_stride, int64_t n, T* out,
                          int64_t out_stride, int64_t begin, int64_t end);

  // losses[i] = -log softmax(logits_i)[target_i]. Where coefficients is not null, logits become
  // coefficient_i * d loss_i / d logits_i.
  void (*cross_entropy)(T* logits, int64_t n, const int64_t* targets, const float* coefficients,
                        float* losses, int64_t begin, int64_t end);
  // divergences[i] = KL(softmax(base_i) || softmax(logits_i)); where coefficients is not null,
  // logits become the gradient as above.
  void (*kl_divergence)(T* logits, const T* base, int64_t n, const float* coefficients,
                        float* divergences, int64_t begin, int64_t end);

  // AdamW (Loshchilov and Hutter, arXiv 1711.05101) as torch.optim.AdamW over [begin, end).
  // copy gets the new parameters in T.
  void (*adamw)(float* parameters, const float* gradients, float* m, float* v, T* copy, float clip,
                float learning_rate, float beta1, float beta2, float epsilon, float weight_decay,
                float correction1, float correction2, int64_t begin, int64_t end);
};

// The table for this processor. `instructions` overrides the choice for tests ("generic", "avx2",
// "avx512"); null when this build or processor lacks it.
template <typename T>
const Kernels<T>* KernelsFor(const char* instructions);
template <typename T>
const Kernels<T>& BestKernels();

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_KERNELS_H_
