// SPDX-License-Identifier: Apache-2.0
#include "worker/train/kernels.h"

#include <string_view>
#include <type_traits>

namespace ballast::worker {

namespace kernels_generic {
extern const Kernels<float> kFloatKernels;
extern const Kernels<Bf16> kBf16Kernels;
}  // namespace kernels_generic
#ifdef BALLAST_X86_KERNELS
namespace kernels_avx2 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<Bf16> kBf16Kernels;
}  // namespace kernels_avx2
namespace kernels_avx512 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<Bf16> kBf16Kernels;
}  // namespace kernels_avx512
#endif

namespace {

bool HasAvx512() {
#ifdef BALLAST_X86_KERNELS
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
#else
  return false;
#endif
}

bool HasAvx2() {
#ifdef BALLAST_X86_KERNELS
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

}  // namespace

template <typename T>
const Kernels<T>* KernelsFor(const char* instructions) {
  const auto pick = [](const Kernels<float>& f, const Kernels<Bf16>& b) {
    if constexpr (std::is_same_v<T, float>) {
      return &f;
    } else {
      return &b;
    }
  };
  const std::string_view name = instructions;
#ifdef BALLAST_X86_KERNELS
  if (name == "avx512" && HasAvx512()) {
    return pick(kernels_avx512::kFloatKernels, kernels_avx512::kBf16Kernels);
  }
  if (name == "avx2" && HasAvx2()) {
    return pick(kernels_avx2::kFloatKernels, kernels_avx2::kBf16Kernels);
  }
#endif
  if (name == "generic") return pick(kernels_generic::kFloatKernels, kernels_generic::kBf16Kernels);
  return nullptr;
}

template <typename T>
const Kernels<T>& BestKernels() {
  static const Kernels<T>& best =
      *KernelsFor<T>(HasAvx512() ? "avx512" : (HasAvx2() ? "avx2" : "generic"));
  return best;
}

template const Kernels<float>* KernelsFor<float>(const char*);
template const Kernels<Bf16>* KernelsFor<Bf16>(const char*);
template const Kernels<float>& BestKernels<float>();
template const Kernels<Bf16>& BestKernels<Bf16>();

}  // namespace ballast::worker
