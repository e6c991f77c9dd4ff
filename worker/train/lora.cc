// SPDX-License-Identifier: Apache-2.0
#include "worker/train/lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "worker/train/random.h"

namespace ballast::worker {

std::string_view ModuleName(Module module) {
  constexpr std::array<std::string_view, kModules> kNames = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return kNames[module];
}

GroupShape ShapeOf(const artifact::ModelConfig& config, Group group) {
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  switch (group) {
    case kQkv:
      return {config.hidden, q + 2 * kv, {kQ, kK, kV}, {q, kv, kv}};
    case kOut:
      return {q, config.hidden, {kO}, {config.hidden}};
    case kGateUp:
      return {config.hidden,
              2 * config.intermediate,
              {kGate, kUp},
              {config.intermediate, config.intermediate}};
    default:
      return {config.intermediate, config.hidden, {kDown}, {config.hidden}};
  }
}

LoraLayout::LoraLayout(const artifact::ModelConfig& config, int64_t rank) : rank_(rank) {
  for (int g = 0; g < kGroups; ++g) groups_[g] = ShapeOf(config, static_cast<Group>(g));
  for (int layer = 0; layer < config.layers; ++layer) {
    for (const GroupShape& group : groups_) {
      a_offsets_.push_back(size_);
      for (const Module module : group.modules) {
        slots_.push_back({layer, module, false, size_, rank, group.in});
        size_ += rank * group.in;
      }
      for (size_t m = 0; m < group.modules.size(); ++m) {
        slots_.push_back({layer, group.modules[m], true, size_, group.module_out[m], rank});
        size_ += group.module_out[m] * rank;
      }
    }
  }
}

int64_t LoraLayout::b_offset(int layer, Group group, int index) const {
  const GroupShape& shape = groups_[group];
  int64_t offset = a_offset(layer, group) + tail(group) * shape.in;
  for (int m = 0; m < index; ++m) offset += shape.module_out[m] * rank_;
  return offset;
}

std::string LoraLayout::PeftName(const LoraSlot& slot) const {
  const std::string_view module = ModuleName(slot.module);
  return absl::StrCat("base_model.model.model.layers.", slot.layer, ".",
                      absl::string_view(module.data(), module.size()),
                      slot.is_b ? ".lora_B" : ".lora_A", ".weight");
}

std::string LoraLayout::VectorName(const LoraSlot& slot) const {
  const std::string_view module = ModuleName(slot.module);
  return absl::StrCat("vector.layers.", slot.layer, ".",
                      absl::string_view(module.data(), module.size()),
                      slot.is_b ? ".lora_B" : ".lora_A");
}

void InitialiseLora(const LoraLayout& layout, uint64_t seed, float* flat) {
  std::fill(flat, flat + layout.size(), 0.0f);
  for (const LoraSlot& slot : layout.slots()) {
    if (slot.is_b) continue;
    // A stream per tensor, so that a tensor's start does not depend on the others' shapes.
    const CounterRandom random(seed, static_cast<uint64_t>(slot.layer) * kModules + slot.module);
    const double bound = 1.0 / std::sqrt(static_cast<double>(slot.columns));
    for (int64_t i = 0; i < slot.rows * slot.columns; ++i) {
      flat[slot.offset + i] = static_cast<float>((2 * random.Uniform(i) - 1) * bound);
    }
  }
}

Adapter ExportAdapter(const LoraLayout& layout, const float* flat) {
  Adapter adapter;
  adapter.reserve(layout.slots().size());
  for (const LoraSlot& slot : layout.slots()) {
    const float* begin = flat + slot.offset;
    adapter.push_back({layout.PeftName(slot),
                       {slot.rows, slot.columns},
                       std::vector<float>(begin, begin + slot.rows * slot.columns)});
  }
  std::sort(adapter.begin(), adapter.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  return adapter;
}

absl::Status ImportAdapter(const LoraLayout& layout, const Adapter& adapter, float* flat) {
  const auto mismatch = [](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ADAPTER_MISMATCH",
                     absl::StrCat("the adapter does not fit this model and rank: ",
                                  absl::string_view(what.data(), what.size())));
  };
  std::map<std::string_view, const NamedTensor*> by_name;
  for (const NamedTensor& tensor : adapter) by_name[tensor.name] = &tensor;
  for (const LoraSlot& slot : layout.slots()) {
    const std::string name = layout.PeftName(slot);
    const auto it = by_name.find(name);
    if (it == by_name.end()) return mismatch(absl::StrCat(name, " is missing"));
    const NamedTensor& tensor = *it->second;
    if (tensor.shape != std::vector<int64_t>{slot.rows, slot.columns} ||
        static_cast<int64_t>(tensor.values.size()) != slot.rows * slot.columns) {
      return mismatch(absl::StrCat(name, " has the shape [", absl::StrJoin(tensor.shape, ", "),
                                   "], not [", slot.rows, ", ", slot.columns, "]"));
    }
    std::memcpy(flat + slot.offset, tensor.values.data(), tensor.values.size() * sizeof(float));
  }
  if (adapter.size() != layout.slots().size())
    return mismatch("it has tensors that no module owns");
  return absl::OkStatus();
}

absl::Status CheckLora(const LoraConfig& lora, const artifact::ModelConfig& config) {
  if (lora.rank < 1 || lora.rank > std::min<int64_t>(512, config.hidden)) {
    return FieldError("lora.rank", "LORA_RANK_OUT_OF_RANGE",
                      absl::StrCat("lora rank is ", lora.rank, "; give a value from 1 to ",
                                   std::min<int64_t>(512, config.hidden)));
  }
  if (!(lora.alpha > 0) || lora.alpha > 65536) {
    return FieldError("lora.alpha", "LORA_ALPHA_OUT_OF_RANGE",
                      "lora alpha must be above 0 and at most 65536; twice the rank is usual");
  }
  return absl::OkStatus();
}

}  // namespace ballast::worker
