// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <utility>

#include "worker/train/memory.h"
#include "worker/train/model.h"

namespace ballast::worker {

namespace {

// columns = scale * b, float32 [out, rank] and T [out, rank] with rows apart. ATen's mul_out would
// round through a temporary of its own, and a vector in training must leave no copy behind.
template <typename T>
void ScaleRows(const float* b, float scale, int64_t out, int64_t rank, int64_t stride, T* columns) {
  for (int64_t row = 0; row < out; ++row) {
    for (int64_t i = 0; i < rank; ++i) {
      columns[row * stride + i] = static_cast<T>(scale * b[row * rank + i]);
    }
  }
}

void ScaleInto(const at::Tensor& b, float scale, const at::Tensor& columns) {
  if (!columns.is_cpu()) {
    at::Tensor target = columns;
    at::mul_out(target, b, at::scalar_tensor(scale));
    return;
  }
  const auto* values = b.const_data_ptr<float>();
  const int64_t out = b.size(0), rank = b.size(1), stride = columns.stride(0);
  if (columns.scalar_type() == at::kBFloat16) {
    ScaleRows(values, scale, out, rank, stride, columns.mutable_data_ptr<at::BFloat16>());
  } else {
    ScaleRows(values, scale, out, rank, stride, columns.mutable_data_ptr<float>());
  }
}

}  // namespace

LinearWeights::LinearWeights(const artifact::ModelConfig& config, at::ScalarType type,
                             at::Device device, bool secret)
    : config_(config), type_(type), device_(device), secret_(secret) {
  layers_.reserve(config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) layers_.push_back(MakeLayer(0));
}

LinearWeights::~LinearWeights() {
  for (Layer& layer : layers_) Release(layer);
}

LinearWeights::Layer LinearWeights::MakeLayer(int64_t rank) const {
  Layer layer;
  std::array<int64_t, kGroups> rows{}, columns{};
  int64_t elements = 0;
  for (int g = 0; g < kGroups; ++g) {
    const GroupShape shape = ShapeOf(config_, static_cast<Group>(g));
    rows[g] = shape.out;
    columns[g] = shape.in + static_cast<int64_t>(shape.modules.size()) * rank;
    elements += rows[g] * columns[g];
  }
  const auto options = at::TensorOptions().dtype(type_).device(device_);
  at::Tensor flat;
  if (secret_ && device_.is_cpu()) {
    layer.secret = SecretBuffer(elements * c10::elementSize(type_));
    flat = at::from_blob(layer.secret.data(), {elements}, options);
  } else {
    flat = at::empty({elements}, options);
  }
  PreferHugePages(flat);
  flat.zero_();
  int64_t offset = 0;
  for (int g = 0; g < kGroups; ++g) {
    layer.groups[g] = flat.narrow(0, offset, rows[g] * columns[g]).view({rows[g], columns[g]});
    offset += rows[g] * columns[g];
  }
  return layer;
}

void LinearWeights::Release(Layer& layer) const {
  if (secret_ && layer.secret.empty()) {
    for (at::Tensor& group : layer.groups) {
      if (group.defined()) group.zero_();
    }
  }
  layer.groups = {};
  layer.secret = SecretBuffer();
}

at::Tensor LinearWeights::base(int layer, Group group) const {
  const int64_t in = ShapeOf(config_, group).in;
  return layers_[layer].groups[group].narrow(1, 0, in);
}

void LinearWeights::Reserve(int64_t rank) {
  // Columns of an earlier job must not act in this one, nor lie in memory that is given back.
  ClearAdapter();
  if (rank == rank_) return;
  // Not a rank until all layers have it: a failed allocation leaves layers of either width.
  rank_ = -1;
  for (Layer& layer : layers_) {
    Layer wider = MakeLayer(rank);
    for (int g = 0; g < kGroups; ++g) {
      const int64_t in = ShapeOf(config_, static_cast<Group>(g)).in;
      wider.groups[g].narrow(1, 0, in).copy_(layer.groups[g].narrow(1, 0, in));
    }
    std::swap(layer, wider);
    Release(wider);
  }
  rank_ = rank;
}

void LinearWeights::ClearAdapter() {
  version_ = 0;
  for (Layer& layer : layers_) {
    for (int g = 0; g < kGroups; ++g) {
      const at::Tensor& weights = layer.groups[g];
      const int64_t in = ShapeOf(config_, static_cast<Group>(g)).in;
      weights.narrow(1, in, weights.size(1) - in).zero_();
    }
  }
}

void LinearWeights::LoadAdapter(const LoraLayout& layout, const at::Tensor& parameters, float scale,
                                uint64_t version) {
  TORCH_CHECK(layout.rank() == rank_, "the weights have no room for this adapter");
  if (version == version_) return;
  for (int layer = 0; layer < layers(); ++layer) {
    for (int g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      const GroupShape& shape = layout.group(group);
      int64_t row = 0;
      for (size_t m = 0; m < shape.modules.size(); ++m) {
        const int64_t out = shape.module_out[m];
        const at::Tensor b =
            parameters.narrow(0, layout.b_offset(layer, group, static_cast<int>(m)), out * rank_);
        const at::Tensor columns =
            layers_[layer]
                .groups[g]
                .narrow(0, row, out)
                .narrow(1, shape.in + static_cast<int64_t>(m) * rank_, rank_);
        ScaleInto(b.view({out, rank_}), scale, columns);
        row += out;
      }
    }
  }
  version_ = version;
}

}  // namespace ballast::worker
