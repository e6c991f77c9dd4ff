// SPDX-License-Identifier: Apache-2.0
// Opens a model on the device and in the precision that suit the machine.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#ifdef BALLAST_X86_KERNELS
#include <cpuid.h>
#endif

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "worker/train/engine.h"
#include "worker/train/engine_log.h"
#include "worker/train/memory.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

// True where bf16 products are faster than fp32 ones. Without AVX512_BF16 they are many times
// slower. Intel's processors have it at half the rate of fp32, and their AMX units for speed, which
// virtual machines often hide: there training in fp32 was 1.6 times as fast as in bf16
// (docs/results/precision.md).
bool ProcessorHasFastBf16() {
#ifdef BALLAST_X86_KERNELS
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  if (!__builtin_cpu_is("intel")) return true;
  // g++ 12's __builtin_cpu_supports does not know AMX.
  constexpr unsigned kAmxBf16 = 1u << 22;  // in EDX of leaf 7
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBf16) != 0;
#else
  return false;
#endif
}

// Registers torch's CUDA backend, which the binary does not link: true where a driver and the
// library are there. Must run before the first tensor.
bool CudaAvailable() {
  static const bool available = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver == nullptr) return false;
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      LogEngineWarning(absl::StrCat(
          "a CUDA driver is present but libtorch_cuda.so cannot be loaded: ", dlerror()));
      return false;
    }
    return at::hasCUDA() && at::globalContext().getAcceleratorHooksInterface().deviceCount() > 0;
  }();
  return available;
}

absl::StatusOr<at::Device> ChooseDevice(const std::string& wish) {
  if (wish == "cpu") return at::Device(at::kCPU);
  if (!wish.empty() && wish != "cuda") {
    return FieldError("device", "DEVICE_UNKNOWN", "device must be empty, 'cpu' or 'cuda'");
  }
  if (CudaAvailable()) return at::Device(at::kCUDA, 0);
  if (wish == "cuda") {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "DEVICE_UNAVAILABLE",
        "device 'cuda' was asked for, but no NVIDIA driver or GPU was found; install the "
        "driver and torch's nvidia packages, or use device 'cpu'");
  }
  return at::Device(at::kCPU);
}

at::ScalarType ChooseType(Precision precision, const at::Device& device) {
  if (precision == Precision::kFloat32) return at::kFloat;
  if (!device.is_cpu() || ProcessorHasFastBf16()) return at::kBFloat16;
  if (precision == Precision::kBfloat16) {
    LogEngineWarning(
        "this processor has no fast bf16 units (AMX, or AMD's AVX512_BF16): bfloat16, as asked "
        "for, will be slow");
    return at::kBFloat16;
  }
  LogEngineWarning(
      "this processor has no fast bf16 units (AMX, or AMD's AVX512_BF16): training in float32");
  return at::kFloat;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const std::string& model_folder,
                                                   const EngineOptions& options) {
  std::unique_ptr<Engine> engine;
  const absl::Status status = CatchTorchErrors([&]() -> absl::Status {
    // Before the first tensor.
    BALLAST_ASSIGN_OR_RETURN(const at::Device device, ChooseDevice(options.device));
    at::set_num_threads(options.threads > 0
                            ? options.threads
                            : static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
    BALLAST_ASSIGN_OR_RETURN(
        std::unique_ptr<Model> model,
        LoadModel(model_folder, ChooseType(options.precision, device), device));
    engine =
        std::make_unique<TorchEngine>(std::move(model), device.is_cpu() ? "cpu" : device.str());
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return engine;
}

}  // namespace ballast::worker
