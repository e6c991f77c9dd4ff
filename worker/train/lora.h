// SPDX-License-Identifier: Apache-2.0
// LoRA (Hu et al., arXiv 2106.09685) on the seven linear modules of every layer: where each tensor
// lies in one flat buffer, its names, and the adapter as parameters of the model.
#ifndef BALLAST_WORKER_TRAIN_LORA_H_
#define BALLAST_WORKER_TRAIN_LORA_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/artifact/model_config.h"
#include "worker/trainer.h"

namespace ballast::worker {

// The linear modules of a layer; those that read the same input are one group, whose base weights
// are stacked so that one product serves all of them.
enum Module { kQ, kK, kV, kO, kGate, kUp, kDown, kModules };
enum Group { kQkv, kOut, kGateUp, kDownGroup, kGroups };

struct GroupShape {
  int64_t in = 0, out = 0;
  std::vector<Module> modules;      // stacked in this order
  std::vector<int64_t> module_out;  // rows of each
};

// "self_attn.q_proj" and so on.
std::string_view ModuleName(Module module);
GroupShape ShapeOf(const artifact::ModelConfig& config, Group group);

// One LoRA tensor in the flat buffer.
struct LoraSlot {
  int layer = 0;
  Module module = kQ;
  bool is_b = false;
  int64_t offset = 0;
  int64_t rows = 0, columns = 0;  // A: [rank, in]; B: [out, rank]
};

// The flat buffer: per layer and group the A of all its modules stacked ([modules * rank, in]),
// then the B of each.
class LoraLayout {
 public:
  LoraLayout(const artifact::ModelConfig& config, int64_t rank);

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }  // floats
  const std::vector<LoraSlot>& slots() const { return slots_; }
  const GroupShape& group(Group group) const { return groups_[group]; }
  // Columns that the adapter adds to a group's input: modules * rank.
  int64_t tail(Group group) const {
    return static_cast<int64_t>(groups_[group].modules.size()) * rank_;
  }
  // Offset of the stacked A, and of module `index` (in the group)'s B.
  int64_t a_offset(int layer, Group group) const { return a_offsets_[layer * kGroups + group]; }
  int64_t b_offset(int layer, Group group, int index) const;

  // "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", as PEFT saves it.
  std::string PeftName(const LoraSlot& slot) const;
  // "vector.layers.3.self_attn.q_proj.lora_A", in a vector's safetensors.
  std::string VectorName(const LoraSlot& slot) const;

 private:
  int64_t rank_ = 0;
  int64_t size_ = 0;
  std::array<GroupShape, kGroups> groups_;
  std::vector<int64_t> a_offsets_;
  std::vector<LoraSlot> slots_;
};

// Writes the adapter a seed starts from into `flat` (float32 [layout.size()], on the CPU): A
// uniform in
// +-1/sqrt(in), which is kaiming_uniform(a = sqrt 5) as in PEFT; B zero. Depends on the seed alone.
void InitialiseLora(const LoraLayout& layout, uint64_t seed, float* flat);

// The tensors of `flat` under their PEFT names, sorted by name.
Adapter ExportAdapter(const LoraLayout& layout, const float* flat);

// The inverse: every tensor must be there with its shape and no other; INVALID_ARGUMENT
// ADAPTER_MISMATCH names the first that is not.
absl::Status ImportAdapter(const LoraLayout& layout, const Adapter& adapter, float* flat);

// INVALID_ARGUMENT for a rank or alpha out of range (LORA_RANK_OUT_OF_RANGE,
// LORA_ALPHA_OUT_OF_RANGE).
absl::Status CheckLora(const LoraConfig& lora, const artifact::ModelConfig& config);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_LORA_H_
