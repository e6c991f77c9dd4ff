// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <string>

#include "worker/train/kernels.h"
#include "worker/train/ops.h"

namespace ballast::worker {
namespace {

// Rows per piece of work such that a piece touches about 64 KiB: below that, waking a thread costs
// more.
int64_t Grain(int64_t elements_per_row) { return std::max<int64_t>(1, 32768 / elements_per_row); }

template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
T* DataOrNull(const at::Tensor& tensor) {
  return tensor.defined() ? Data<T>(tensor) : nullptr;
}

class FusedCpuOps final : public Ops {
 public:
  FusedCpuOps(const Kernels<float>* floats, const Kernels<Bf16>* bf16)
      : floats_(floats), bf16_(bf16) {}

  void RmsNorm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
               double epsilon, const at::Tensor& sum, const at::Tensor& out,
               const at::Tensor& rstd) const override {
    Dispatch(x, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t n = x.size(1), stride = out.stride(0);
      at::parallel_for(0, x.size(0), Grain(n), [&](int64_t begin, int64_t end) {
        kernels.rms_norm(Data<T>(x), DataOrNull<T>(delta), Data<float>(weight),
                         static_cast<float>(epsilon), n, DataOrNull<T>(sum), Data<T>(out), stride,
                         Data<float>(rstd), begin, end);
      });
    });
  }

  void RmsNormAgain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                    const at::Tensor& out) const override {
    Dispatch(x, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t n = x.size(1), stride = out.stride(0);
      at::parallel_for(0, x.size(0), Grain(n), [&](int64_t begin, int64_t end) {
        kernels.rms_norm_again(Data<T>(x), Data<float>(weight), Data<float>(rstd), n, Data<T>(out),
                               stride, begin, end);
      });
    });
  }

  void RmsNormBackward(const at::Tensor& dout, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, const at::Tensor& residual,
                       const at::Tensor& dx) const override {
    Dispatch(x, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t n = x.size(1), stride = dout.stride(0);
      at::parallel_for(0, x.size(0), Grain(n), [&](int64_t begin, int64_t end) {
        kernels.rms_norm_backward(Data<T>(dout), stride, Data<T>(x), Data<float>(weight),
                                  Data<float>(rstd), DataOrNull<T>(residual), n, Data<T>(dx), begin,
                                  end);
      });
    });
  }

  void SplitRotate(const at::Tensor& qkv, const at::Tensor& positions, const RotaryTable& table,
                   const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const override {
    Dispatch(qkv, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t rows = k.size(1);
      at::parallel_for(0, rows, Grain(qkv.size(1)), [&](int64_t begin, int64_t end) {
        kernels.split_rotate(Data<T>(qkv), Data<int32_t>(positions), Data<float>(table.cos),
                             Data<float>(table.sin), rows, k.size(0), q.size(1) / rows, k.size(2),
                             Data<T>(q), Data<T>(k), Data<T>(v), begin, end);
      });
    });
  }

  void JoinRotateBack(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                      const at::Tensor& positions, const RotaryTable& table,
                      const at::Tensor& dqkv) const override {
    Dispatch(dq, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t rows = dk.size(1);
      at::parallel_for(0, rows, Grain(dqkv.size(1)), [&](int64_t begin, int64_t end) {
        kernels.join_rotate_back(Data<T>(dq), Data<float>(dk), Data<float>(dv),
                                 Data<int32_t>(positions), Data<float>(table.cos),
                                 Data<float>(table.sin), rows, dk.size(0), dq.size(1) / rows,
                                 dk.size(2), Data<T>(dqkv), begin, end);
      });
    });
  }

  void JoinHeads(const at::Tensor& heads, const at::Tensor& out) const override {
    Dispatch(heads, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t rows = out.size(0);
      at::parallel_for(0, rows, Grain(out.size(1)), [&](int64_t begin, int64_t end) {
        kernels.join_heads(Data<T>(heads), rows, heads.size(0), heads.size(1) / rows, heads.size(2),
                           Data<T>(out), out.stride(0), begin, end);
      });
    });
  }

  void SplitHeads(const at::Tensor& dout, const at::Tensor& heads, const at::Tensor& dheads,
                  const at::Tensor& delta) const override {
    Dispatch(heads, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t rows = dout.size(0);
      at::parallel_for(0, rows, Grain(dout.size(1)), [&](int64_t begin, int64_t end) {
        kernels.split_heads(Data<T>(dout), dout.stride(0), Data<T>(heads), rows, heads.size(0),
                            heads.size(1) / rows, heads.size(2), Data<T>(dheads),
                            Data<float>(delta), begin, end);
      });
    });
  }

  void Softmax(const at::Tensor& scores, const at::Tensor& first, int64_t query0, int64_t repeat,
               double scale, const at::Tensor& lse) const override {
    Dispatch(scores, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      ForEachHead(scores, [&](int64_t head, int64_t begin, int64_t end) {
        kernels.softmax(Data<T>(scores) + head * scores.stride(0), scores.size(2), scores.stride(1),
                        Data<int32_t>(first), query0, repeat, static_cast<float>(scale),
                        Data<float>(lse) + head * lse.stride(0), begin, end);
      });
    });
  }

  void SoftmaxBackward(const at::Tensor& scores, const at::Tensor& dprobabilities,
                       const at::Tensor& first, int64_t query0, int64_t repeat, double scale,
                       const at::Tensor& lse, const at::Tensor& delta) const override {
    Dispatch(scores, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      ForEachHead(scores, [&](int64_t head, int64_t begin, int64_t end) {
        kernels.softmax_backward(Data<T>(scores) + head * scores.stride(0),
                                 Data<T>(dprobabilities) + head * scores.stride(0), scores.size(2),
                                 scores.stride(1), Data<int32_t>(first), query0, repeat,
                                 static_cast<float>(scale), Data<float>(lse) + head * lse.stride(0),
                                 Data<float>(delta) + head * delta.stride(0), begin, end);
      });
    });
  }

  void SwiGlu(const at::Tensor& gate_up, const at::Tensor& out) const override {
    Dispatch(gate_up, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t n = out.size(1);
      at::parallel_for(0, out.size(0), Grain(2 * n), [&](int64_t begin, int64_t end) {
        kernels.swiglu(Data<T>(gate_up), n, Data<T>(out), out.stride(0), begin, end);
      });
    });
  }

  void SwiGluBackward(const at::Tensor& gate_up, const at::Tensor& dout,
                      const at::Tensor& out) const override {
    Dispatch(gate_up, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const int64_t n = out.size(1);
      at::parallel_for(0, out.size(0), Grain(2 * n), [&](int64_t begin, int64_t end) {
        kernels.swiglu_backward(Data<T>(gate_up), Data<T>(dout), dout.stride(0), n, Data<T>(out),
                                out.stride(0), begin, end);
      });
    });
  }

  void CrossEntropy(const at::Tensor& logits, const at::Tensor& targets,
                    const at::Tensor& coefficients, const at::Tensor& losses) const override {
    Dispatch(logits, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
        kernels.cross_entropy(Data<T>(logits), logits.size(1), Data<int64_t>(targets),
                              DataOrNull<float>(coefficients), Data<float>(losses), begin, end);
      });
    });
  }

  void KlDivergence(const at::Tensor& logits, const at::Tensor& base,
                    const at::Tensor& coefficients, const at::Tensor& divergences) const override {
    Dispatch(logits, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
        kernels.kl_divergence(Data<T>(logits), Data<T>(base), logits.size(1),
                              DataOrNull<float>(coefficients), Data<float>(divergences), begin,
                              end);
      });
    });
  }

  void AdamW(const at::Tensor& parameters, const at::Tensor& gradients, const at::Tensor& m,
             const at::Tensor& v, const at::Tensor& copy, const AdamWStep& step) const override {
    Dispatch(copy, [&](const auto& kernels, auto tag) {
      using T = decltype(tag);
      const double correction1 = 1.0 - std::pow(static_cast<double>(step.beta1), step.step);
      const double correction2 = 1.0 - std::pow(static_cast<double>(step.beta2), step.step);
      at::parallel_for(0, parameters.numel(), 32768, [&](int64_t begin, int64_t end) {
        kernels.adamw(Data<float>(parameters), Data<float>(gradients), Data<float>(m),
                      Data<float>(v), Data<T>(copy), step.clip, step.learning_rate, step.beta1,
                      step.beta2, step.epsilon, step.weight_decay, static_cast<float>(correction1),
                      static_cast<float>(correction2), begin, end);
      });
    });
  }

 private:
  // Calls function(kernels, T{}) with the kernels of the tensor's type.
  template <typename Function>
  void Dispatch(const at::Tensor& tensor, const Function& function) const {
    if (tensor.scalar_type() == at::kFloat) {
      function(*floats_, float{});
    } else {
      function(*bf16_, Bf16{});
    }
  }

  // Splits the rows of [heads, rows, columns] over threads, across heads.
  template <typename Function>
  static void ForEachHead(const at::Tensor& scores, const Function& function) {
    const int64_t rows = scores.size(1);
    at::parallel_for(0, scores.size(0) * rows, Grain(2 * scores.size(2)),
                     [&](int64_t begin, int64_t end) {
                       while (begin < end) {
                         const int64_t head = begin / rows;
                         const int64_t stop = std::min(end, (head + 1) * rows);
                         function(head, begin - head * rows, stop - head * rows);
                         begin = stop;
                       }
                     });
  }

  const Kernels<float>* floats_;
  const Kernels<Bf16>* bf16_;
};

}  // namespace

std::unique_ptr<Ops> MakeFusedCpuOps(const char* instructions) {
  const Kernels<float>* floats = KernelsFor<float>(instructions);
  const Kernels<Bf16>* bf16 = KernelsFor<Bf16>(instructions);
  if (floats == nullptr || bf16 == nullptr) return nullptr;
  return std::make_unique<FusedCpuOps>(floats, bf16);
}

std::unique_ptr<Ops> MakeOps(const at::Device& device) {
  if (!device.is_cpu()) return MakeAtenOps();
  return std::make_unique<FusedCpuOps>(&BestKernels<float>(), &BestKernels<Bf16>());
}

}  // namespace ballast::worker
