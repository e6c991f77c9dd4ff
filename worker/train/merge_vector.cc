// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/safetensors.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "worker/train/model.h"

namespace ballast::worker {
namespace {

// Nothing of the vector but names of modules may be in a message.
absl::Status Mismatch(std::string_view what) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "VECTOR_MISMATCH",
      absl::StrCat("the vector does not fit this base model: ",
                   absl::string_view(what.data(), what.size()), "; train a vector for this base"));
}

// Room for `elements` floats on a secret's pages.
struct SecretTensor {
  explicit SecretTensor(int64_t elements)
      : buffer(elements * sizeof(float)),
        tensor(at::from_blob(buffer.data(), {elements}, at::TensorOptions().dtype(at::kFloat))) {}
  SecretBuffer buffer;
  at::Tensor tensor;
};

// Copies one float32 tensor of the vector to `target` ([rows, columns], its own memory).
absl::Status ReadTensor(const artifact::SafetensorsView& view, const std::string& name,
                        const at::Tensor& target) {
  const auto it = view.tensors.find(name);
  if (it == view.tensors.end()) return Mismatch(name + " is missing");
  if (it->second.dtype != artifact::DType::kF32 ||
      at::IntArrayRef(it->second.shape) != target.sizes()) {
    return Mismatch(name + " has another shape or type");
  }
  auto* values = target.mutable_data_ptr<float>();
  std::memcpy(values, it->second.bytes.data(), it->second.bytes.size());
  if (!std::all_of(values, values + target.numel(), [](float v) { return std::isfinite(v); })) {
    return Mismatch(name + " has a value that is not finite");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LinearWeights>> MergeVector(const Model& model,
                                                           const SecretBuffer& vector) {
  absl::StatusOr<artifact::SafetensorsView> view = artifact::ParseSafetensors(vector.view());
  if (!view.ok()) return Mismatch("it is no safetensors file");
  int64_t rank = 0;
  double alpha = 0;
  if (!absl::SimpleAtoi(view->metadata["rank"], &rank) || rank < 1 || rank > model.config.hidden ||
      !absl::SimpleAtod(view->metadata["alpha"], &alpha) || !(alpha > 0) || !std::isfinite(alpha)) {
    return Mismatch("its rank or alpha is missing or out of range");
  }
  const LoraLayout layout(model.config, rank);
  if (view->tensors.size() != layout.slots().size())
    return Mismatch("it has another set of tensors");

  auto merged =
      std::make_unique<LinearWeights>(model.config, model.type, model.device, /*secret=*/true);
  // One workspace for the largest module; zeroed when this function returns.
  int64_t largest = 0, widest = 0, tallest = 0;
  for (int g = 0; g < kGroups; ++g) {
    const GroupShape& shape = layout.group(static_cast<Group>(g));
    widest = std::max(widest, shape.in);
    for (const int64_t out : shape.module_out) {
      tallest = std::max(tallest, out);
      largest = std::max(largest, out * shape.in);
    }
  }
  SecretTensor sum(largest), a_buffer(rank * widest), b_buffer(tallest * rank);
  for (int layer = 0; layer < model.config.layers; ++layer) {
    for (int g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      const GroupShape& shape = layout.group(group);
      int64_t row = 0;
      for (size_t m = 0; m < shape.modules.size(); ++m) {
        const int64_t out = shape.module_out[m];
        const LoraSlot a_slot{layer, shape.modules[m], false, 0, rank, shape.in};
        const LoraSlot b_slot{layer, shape.modules[m], true, 0, out, rank};
        const at::Tensor a = a_buffer.tensor.narrow(0, 0, rank * shape.in).view({rank, shape.in});
        const at::Tensor b = b_buffer.tensor.narrow(0, 0, out * rank).view({out, rank});
        BALLAST_RETURN_IF_ERROR(ReadTensor(*view, layout.VectorName(a_slot), a));
        BALLAST_RETURN_IF_ERROR(ReadTensor(*view, layout.VectorName(b_slot), b));
        at::Tensor wide = sum.tensor.narrow(0, 0, out * shape.in).view({out, shape.in});
        wide.copy_(model.clean->base(layer, group).narrow(0, row, out));
        wide.addmm_(b, a, 1.0, alpha / static_cast<double>(rank));
        merged->base(layer, group).narrow(0, row, out).copy_(wide);
        row += out;
      }
    }
  }
  return merged;
}

}  // namespace ballast::worker
