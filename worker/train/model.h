// SPDX-License-Identifier: Apache-2.0
// A loaded base model: its linear layers as stacked matrices with room for an adapter, and the
// rest.
#ifndef BALLAST_WORKER_TRAIN_MODEL_H_
#define BALLAST_WORKER_TRAIN_MODEL_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/model_config.h"
#include "worker/secret.h"
#include "worker/train/lora.h"
#include "worker/train/ops.h"

namespace ballast::worker {

// One copy of all linear layers in the compute type, as [out, in + tail] per layer and group.
//
// The last `tail` columns hold the adapter's scaled B (block-diagonal over the group's modules), so
// that [h | A h] times this matrix is the base's output plus the adapter's in one product, and the
// gradient's product yields those of h and of A h at once.
class LinearWeights {
 public:
  // Copies hold the base merged with a vector when `secret`: their pages are excluded from core
  // dumps and zeroed when released. A secret copy is for CPU tensors; on another device the storage
  // is zeroed by hand instead.
  LinearWeights(const artifact::ModelConfig& config, at::ScalarType type, at::Device device,
                bool secret);
  ~LinearWeights();
  LinearWeights(const LinearWeights&) = delete;
  LinearWeights& operator=(const LinearWeights&) = delete;

  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t rank() const { return rank_; }
  // [out, in + tail].
  const at::Tensor& augmented(int layer, Group group) const { return layers_[layer].groups[group]; }
  // [out, in], a strided view of the same.
  at::Tensor base(int layer, Group group) const;

  // Makes room for an adapter of `rank` (0: none), moving one layer at a time; its columns are
  // zero.
  void Reserve(int64_t rank);

  // Zeroes the adapter's columns in place. Allocates nothing, so that a destructor may call it.
  void ClearAdapter();

  // Writes scale * B of `parameters` (float32, flat as `layout`, same device) into the columns,
  // unless `version` is what they already hold. Requires: layout.rank() == rank().
  void LoadAdapter(const LoraLayout& layout, const at::Tensor& parameters, float scale,
                   uint64_t version);

 private:
  struct Layer {
    SecretBuffer secret;
    std::array<at::Tensor, kGroups> groups;
  };
  Layer MakeLayer(int64_t rank) const;
  void Release(Layer& layer) const;

  artifact::ModelConfig config_;
  at::ScalarType type_;
  at::Device device_;
  bool secret_;
  int64_t rank_ = 0;
  uint64_t version_ = 0;
  std::vector<Layer> layers_;
};

struct Model {
  artifact::ModelConfig config;
  at::ScalarType type = at::kFloat;  // compute type: float32 or bfloat16
  at::Device device = at::kCPU;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<LinearWeights> clean;
  at::Tensor embedding;                     // T [V, H]
  at::Tensor head;                          // T [V, H]; the embedding where tied
  std::vector<at::Tensor> attention_norms;  // float32 [H] per layer
  std::vector<at::Tensor> mlp_norms;
  at::Tensor final_norm;
  RotaryTable rotary;  // positions of the whole context
  int64_t parameters = 0;
};

// Reads the Hugging Face folder. INVALID_ARGUMENT: as ParseModelConfig; SAFETENSORS_* for a damaged
// file; TENSOR_MISMATCH where a tensor is missing, unknown, or of another shape or type.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& folder, at::ScalarType type,
                                                 at::Device device);

// The base with `vector` (safetensors of a LoRA, names as LoraLayout::VectorName, scale = metadata
// "alpha" / rank) merged: computed in float32, rounded once (Hu et al., section 4.1). The copy has
// no room for an adapter yet. INVALID_ARGUMENT VECTOR_MISMATCH when the vector is not one for this
// model.
absl::StatusOr<std::unique_ptr<LinearWeights>> MergeVector(const Model& model,
                                                           const SecretBuffer& vector);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_MODEL_H_
