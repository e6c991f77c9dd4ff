// SPDX-License-Identifier: Apache-2.0
// The bodies of kernels.h, compiled once per instruction set by kernels_{generic,avx2,avx512}.cc,
// which define BALLAST_KERNELS_NAMESPACE and BALLAST_KERNELS_NAME. No include guard, no library
// headers (see kernels.h). Loops are written for the auto-vectoriser: `omp simd` allows reordering
// a sum.
#include "worker/train/kernels.h"

namespace ballast::worker::BALLAST_KERNELS_NAMESPACE {
namespace {

inline float BitsToFloat(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t FloatToBits(float value) { return __builtin_bit_cast(uint32_t, value); }

inline float Load(const float* p) { return *p; }
inline float Load(const Bf16* p) { return BitsToFloat(static_cast<uint32_t>(p->bits) << 16); }
inline void Store(float* p, float value) { *p = value; }
// Round to nearest even. NaN as arithmetic makes them and as bfloat16 widens to stay NaN.
inline void Store(Bf16* p, float value) {
  const uint32_t bits = FloatToBits(value);
  p->bits = static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// exp with a relative error below 2e-7 for |x| <= 87, clamped outside (so never infinite or
// denormal); NaN stays NaN. Range reduction by log 2 in two parts, then a polynomial (Cephes' expf
// coefficients).
inline float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * BitsToFloat((FloatToBits(shifted) << 23) + 0x3f800000U);
}

inline float Log(float x) { return __builtin_logf(x); }

template <typename T>
void RmsNorm(const T* x, const T* delta, const float* weight, float epsilon, int64_t n, T* sum,
             T* out, int64_t out_stride, float* rstd, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* xr = x + row * n;
    T* outr = out + row * out_stride;
    float squares = 0;
    if (delta != nullptr) {
      const T* dr = delta + row * n;
      T* sr = sum + row * n;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < n; ++i) {
        Store(sr + i, Load(xr + i) + Load(dr + i));
        const float value = Load(sr + i);
        squares += value * value;
      }
      xr = sr;
    } else {
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < n; ++i) {
        const float value = Load(xr + i);
        squares += value * value;
      }
    }
    const float r = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + epsilon);
    rstd[row] = r;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) Store(outr + i, Load(xr + i) * r * weight[i]);
  }
}

template <typename T>
void RmsNormAgain(const T* x, const float* weight, const float* rstd, int64_t n, T* out,
                  int64_t out_stride, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* xr = x + row * n;
    T* outr = out + row * out_stride;
    const float r = rstd[row];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) Store(outr + i, Load(xr + i) * r * weight[i]);
  }
}

template <typename T>
void RmsNormBackward(const T* dout, int64_t dout_stride, const T* x, const float* weight,
                     const float* rstd, const T* residual, int64_t n, T* dx, int64_t begin,
                     int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* dr = dout + row * dout_stride;
    const T* xr = x + row * n;
    T* dxr = dx + row * n;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n; ++i) dot += Load(dr + i) * weight[i] * Load(xr + i);
    const float r = rstd[row];
    const float along = dot * r * r / static_cast<float>(n);
    if (residual != nullptr) {
      const T* rr = residual + row * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        Store(dxr + i, Load(rr + i) + r * (Load(dr + i) * weight[i] - Load(xr + i) * along));
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        Store(dxr + i, r * (Load(dr + i) * weight[i] - Load(xr + i) * along));
      }
    }
  }
}

// Rotates one head by `sign` times the angle of its position.
template <typename In, typename T>
inline void RotateHead(const In* in, const float* cos, const float* sin, float sign, int64_t half,
                       T* out) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = Load(in + i), b = Load(in + half + i);
    const float c = cos[i], s = sin[i] * sign;
    Store(out + i, a * c - b * s);
    Store(out + half + i, b * c + a * s);
  }
}

template <typename In, typename T>
inline void CopyHead(const In* in, int64_t d, T* out) {
#pragma omp simd
  for (int64_t i = 0; i < d; ++i) Store(out + i, Load(in + i));
}

template <typename T>
void SplitRotate(const T* qkv, const int32_t* positions, const float* cos, const float* sin,
                 int64_t rows, int64_t kv_heads, int64_t repeat, int64_t d, T* q, T* k, T* v,
                 int64_t begin, int64_t end) {
  const int64_t half = d / 2;
  for (int64_t row = begin; row < end; ++row) {
    const T* in = qkv + row * (repeat + 2) * kv_heads * d;
    const float* c = cos + positions[row] * half;
    const float* s = sin + positions[row] * half;
    for (int64_t group = 0; group < kv_heads; ++group) {
      for (int64_t head = 0; head < repeat; ++head) {
        RotateHead(in + (group * repeat + head) * d, c, s, 1.0f, half,
                   q + ((group * rows + row) * repeat + head) * d);
      }
      RotateHead(in + (repeat * kv_heads + group) * d, c, s, 1.0f, half,
                 k + (group * rows + row) * d);
      CopyHead(in + ((repeat + 1) * kv_heads + group) * d, d, v + (group * rows + row) * d);
    }
  }
}

template <typename T>
void JoinRotateBack(const T* dq, const float* dk, const float* dv, const int32_t* positions,
                    const float* cos, const float* sin, int64_t rows, int64_t kv_heads,
                    int64_t repeat, int64_t d, T* dqkv, int64_t begin, int64_t end) {
  const int64_t half = d / 2;
  for (int64_t row = begin; row < end; ++row) {
    T* out = dqkv + row * (repeat + 2) * kv_heads * d;
    const float* c = cos + positions[row] * half;
    const float* s = sin + positions[row] * half;
    for (int64_t group = 0; group < kv_heads; ++group) {
      for (int64_t head = 0; head < repeat; ++head) {
        RotateHead(dq + ((group * rows + row) * repeat + head) * d, c, s, -1.0f, half,
                   out + (group * repeat + head) * d);
      }
      RotateHead(dk + (group * rows + row) * d, c, s, -1.0f, half,
                 out + (repeat * kv_heads + group) * d);
      CopyHead(dv + (group * rows + row) * d, d, out + ((repeat + 1) * kv_heads + group) * d);
    }
  }
}

template <typename T>
void JoinHeads(const T* heads, int64_t rows, int64_t kv_heads, int64_t repeat, int64_t d, T* out,
               int64_t out_stride, int64_t begin, int64_t end) {
  const int64_t width = repeat * d;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t group = 0; group < kv_heads; ++group) {
      CopyHead(heads + (group * rows + row) * width, width, out + row * out_stride + group * width);
    }
  }
}

template <typename T>
void SplitHeads(const T* dout, int64_t dout_stride, const T* out, int64_t rows, int64_t kv_heads,
                int64_t repeat, int64_t d, T* dheads, float* delta, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t group = 0; group < kv_heads; ++group) {
      for (int64_t head = 0; head < repeat; ++head) {
        const int64_t at = (group * rows + row) * repeat + head;
        const T* dr = dout + row * dout_stride + (group * repeat + head) * d;
        const T* or_ = out + at * d;
        T* target = dheads + at * d;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < d; ++i) {
          target[i] = dr[i];
          dot += Load(dr + i) * Load(or_ + i);
        }
        delta[at] = dot;
      }
    }
  }
}

template <typename T>
inline float Largest(const T* row, int64_t n) {
  float top = -3.0e38f;
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; ++i) top = Load(row + i) > top ? Load(row + i) : top;
  return top;
}

// The sum of `term(i)` for i in [0, n), in float32 within a block and in float64 over the blocks.
// One float32 sum over a vocabulary drops terms that are small beside it, and how many it drops
// would depend on how wide the compiler makes it.
template <typename Term>
inline float BlockedSum(int64_t n, const Term& term) {
  constexpr int64_t kTerms = 256;
  double total = 0;
  for (int64_t from = 0; from < n; from += kTerms) {
    const int64_t to = n - from < kTerms ? n : from + kTerms;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = from; i < to; ++i) sum += term(i);
    total += sum;
  }
  return static_cast<float>(total);
}

// Writes exp(scale * score - top) of `count` scores to `out` and returns their sum.
template <typename T>
inline float ExpAndSum(const T* scores, int64_t count, float scale, float top, float* out) {
  return BlockedSum(count, [=](int64_t i) {
    const float e = Exp(Load(scores + i) * scale - top);
    out[i] = e;
    return e;
  });
}

template <typename T>
void Softmax(T* scores, int64_t columns, int64_t stride, const int32_t* first, int64_t query0,
             int64_t repeat, float scale, float* lse, int64_t begin, int64_t end) {
  constexpr int64_t kBuffer = 2048;
  float buffer[kBuffer];
  for (int64_t row = begin; row < end; ++row) {
    T* s = scores + row * stride;
    const int64_t query = query0 + row / repeat;
    const int64_t from = first[query], to = query + 1, count = to - from;
    const float top = Largest(s + from, count) * scale;
    float sum = 0;
    if (count <= kBuffer) {
      sum = ExpAndSum(s + from, count, scale, top, buffer);
      const float inverse = 1.0f / sum;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) Store(s + from + i, buffer[i] * inverse);
    } else {
      // Too long to keep: the exponentials are taken twice rather than rounded twice.
      for (int64_t at = from; at < to; at += kBuffer) {
        sum += ExpAndSum(s + at, to - at < kBuffer ? to - at : kBuffer, scale, top, buffer);
      }
      const float inverse = 1.0f / sum;
#pragma omp simd
      for (int64_t i = from; i < to; ++i) Store(s + i, Exp(Load(s + i) * scale - top) * inverse);
    }
    for (int64_t i = 0; i < from; ++i) Store(s + i, 0.0f);
    for (int64_t i = to; i < columns; ++i) Store(s + i, 0.0f);
    lse[row] = top + Log(sum);
  }
}

template <typename T>
void SoftmaxBackward(T* scores, T* dprobabilities, int64_t columns, int64_t stride,
                     const int32_t* first, int64_t query0, int64_t repeat, float scale,
                     const float* lse, const float* delta, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* s = scores + row * stride;
    T* dp = dprobabilities + row * stride;
    const int64_t query = query0 + row / repeat;
    const int64_t from = first[query], to = query + 1;
    const float l = lse[row], dot = delta[row];
    for (int64_t i = 0; i < from; ++i) {
      Store(s + i, 0.0f);
      Store(dp + i, 0.0f);
    }
#pragma omp simd
    for (int64_t i = from; i < to; ++i) {
      const float p = Exp(Load(s + i) * scale - l);
      Store(s + i, p);
      Store(dp + i, p * (Load(dp + i) - dot) * scale);
    }
    for (int64_t i = to; i < columns; ++i) {
      Store(s + i, 0.0f);
      Store(dp + i, 0.0f);
    }
  }
}

template <typename T>
void SwiGlu(const T* gate_up, int64_t n, T* out, int64_t out_stride, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* g = gate_up + row * 2 * n;
    const T* u = g + n;
    T* o = out + row * out_stride;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float gate = Load(g + i);
      Store(o + i, gate / (1.0f + Exp(-gate)) * Load(u + i));
    }
  }
}

template <typename T>
void SwiGluBackward(T* gate_up, const T* dout, int64_t dout_stride, int64_t n, T* out,
                    int64_t out_stride, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* g = gate_up + row * 2 * n;
    T* u = g + n;
    const T* d = dout + row * dout_stride;
    T* o = out + row * out_stride;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float gate = Load(g + i), up = Load(u + i), gradient = Load(d + i);
      const float sigmoid = 1.0f / (1.0f + Exp(-gate));
      const float silu = gate * sigmoid;
      Store(o + i, silu * up);
      Store(g + i, gradient * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
      Store(u + i, gradient * silu);
    }
  }
}

template <typename T>
inline float SumOfExp(const T* row, int64_t n, float top) {
  return BlockedSum(n, [=](int64_t i) { return Exp(Load(row + i) - top); });
}

template <typename T>
void CrossEntropy(T* logits, int64_t n, const int64_t* targets, const float* coefficients,
                  float* losses, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* l = logits + row * n;
    const float top = Largest(l, n);
    const float sum = SumOfExp(l, n, top);
    const float target = Load(l + targets[row]);
    losses[row] = top + Log(sum) - target;
    if (coefficients == nullptr) continue;
    const float coefficient = coefficients[row];
    const float share = coefficient / sum;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) Store(l + i, Exp(Load(l + i) - top) * share);
    Store(l + targets[row], Exp(target - top) * share - coefficient);
  }
}

template <typename T>
void KlDivergence(T* logits, const T* base, int64_t n, const float* coefficients,
                  float* divergences, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* l = logits + row * n;
    const T* b = base + row * n;
    const float top_l = Largest(l, n), top_b = Largest(b, n);
    const float sum_l = SumOfExp(l, n, top_l), sum_b = SumOfExp(b, n, top_b);
    const float shift = top_l + Log(sum_l) - top_b - Log(sum_b);
    const float share_b = 1.0f / sum_b;
    divergences[row] = BlockedSum(n, [=](int64_t i) {
      return Exp(Load(b + i) - top_b) * share_b * (Load(b + i) - Load(l + i) + shift);
    });
    if (coefficients == nullptr) continue;
    const float coefficient = coefficients[row];
    const float share_l = 1.0f / sum_l;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      Store(l + i, coefficient *
                       (Exp(Load(l + i) - top_l) * share_l - Exp(Load(b + i) - top_b) * share_b));
    }
  }
}

template <typename T>
void AdamW(float* parameters, const float* gradients, float* m, float* v, T* copy, float clip,
           float learning_rate, float beta1, float beta2, float epsilon, float weight_decay,
           float correction1, float correction2, int64_t begin, int64_t end) {
  const float step = learning_rate / correction1;
  const float root = 1.0f / __builtin_sqrtf(correction2);
  const float keep = 1.0f - learning_rate * weight_decay;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float gradient = gradients[i] * clip;
    m[i] = beta1 * m[i] + (1.0f - beta1) * gradient;
    v[i] = beta2 * v[i] + (1.0f - beta2) * gradient * gradient;
    parameters[i] = keep * parameters[i] - step * m[i] / (__builtin_sqrtf(v[i]) * root + epsilon);
    Store(copy + i, parameters[i]);
  }
}

template <typename T>
constexpr Kernels<T> Table() {
  Kernels<T> table{};
  table.name = BALLAST_KERNELS_NAME;
  table.rms_norm = RmsNorm<T>;
  table.rms_norm_again = RmsNormAgain<T>;
  table.rms_norm_backward = RmsNormBackward<T>;
  table.split_rotate = SplitRotate<T>;
  table.join_rotate_back = JoinRotateBack<T>;
  table.join_heads = JoinHeads<T>;
  table.split_heads = SplitHeads<T>;
  table.softmax = Softmax<T>;
  table.softmax_backward = SoftmaxBackward<T>;
  table.swiglu = SwiGlu<T>;
  table.swiglu_backward = SwiGluBackward<T>;
  table.cross_entropy = CrossEntropy<T>;
  table.kl_divergence = KlDivergence<T>;
  table.adamw = AdamW<T>;
  return table;
}

}  // namespace

extern const Kernels<float> kFloatKernels;
extern const Kernels<Bf16> kBf16Kernels;
// Included once by each kernels_*.cc, under its own namespace.
// NOLINTNEXTLINE(misc-definitions-in-headers)
const Kernels<float> kFloatKernels = Table<float>();
// NOLINTNEXTLINE(misc-definitions-in-headers)
const Kernels<Bf16> kBf16Kernels = Table<Bf16>();

}  // namespace ballast::worker::BALLAST_KERNELS_NAMESPACE
