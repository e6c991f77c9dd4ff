// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/adapter_folder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/artifact/model_config.h"
#include "common/artifact/safetensors.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxRank = int64_t{1} << 24;

absl::Status NotAllowed(absl::StatusCode code, std::string_view problem) {
  return MakeError(
      code, "ARTIFACT_TENSOR_NOT_ALLOWED",
      absl::StrCat(std::string(problem),
                   "; an adapter has exactly the tensors that its base and rank give it"));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

float HalfToFloat(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  float value = 0;
  if (exponent == 31) {
    value = mantissa == 0 ? std::numeric_limits<float>::infinity()
                          : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa | 1024), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

float Bfloat16ToFloat(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

absl::StatusOr<std::vector<float>> ToFloats(std::string_view name, const TensorView& tensor) {
  const auto count = static_cast<size_t>(Elements(tensor.shape));
  std::vector<float> values(count);
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), tensor.bytes.data(), count * sizeof(float));
    return values;
  }
  if (tensor.dtype != DType::kBF16 && tensor.dtype != DType::kF16) {
    return NotAllowed(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("tensor ", std::string(name), " is not float32, bfloat16 or float16"));
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof(bits));
    values[i] = tensor.dtype == DType::kBF16 ? Bfloat16ToFloat(bits) : HalfToFloat(bits);
  }
  return values;
}

}  // namespace

const std::vector<std::string>& AdapterTargetModules() {
  static const auto& modules = *new std::vector<std::string>{
      "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"};
  return modules;
}

absl::StatusOr<std::vector<AdapterTensorSpec>> AdapterTensorSpecs(std::string_view config_json,
                                                                  int rank) {
  if (rank < 1 || rank > kMaxRank) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "ADAPTER_CONFIG_INVALID",
        absl::StrCat("the adapter's rank is ", rank, "; it must be in [1, ", kMaxRank, "]"));
  }
  BALLAST_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(config_json));
  const int64_t hidden = config.hidden, feed_forward = config.intermediate,
                q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  struct Module {
    const char* path;
    int64_t in, out;
  };
  const Module modules[] = {
      {"mlp.down_proj", feed_forward, hidden}, {"mlp.gate_proj", hidden, feed_forward},
      {"mlp.up_proj", hidden, feed_forward},   {"self_attn.k_proj", hidden, kv},
      {"self_attn.o_proj", q, hidden},         {"self_attn.q_proj", hidden, q},
      {"self_attn.v_proj", hidden, kv},
  };
  std::vector<AdapterTensorSpec> specs;
  specs.reserve(static_cast<size_t>(config.layers) * std::size(modules) * 2);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const Module& module : modules) {
      const std::string prefix =
          absl::StrCat("base_model.model.model.layers.", layer, ".", module.path, ".lora_");
      specs.push_back({absl::StrCat(prefix, "A.weight"), {rank, module.in}});
      specs.push_back({absl::StrCat(prefix, "B.weight"), {module.out, rank}});
    }
  }
  std::sort(specs.begin(), specs.end(),
            [](const AdapterTensorSpec& a, const AdapterTensorSpec& b) { return a.name < b.name; });
  return specs;
}

absl::StatusOr<std::string> WriteAdapterModel(const std::vector<AdapterTensorSpec>& allowed,
                                              const std::vector<AdapterTensorView>& tensors) {
  constexpr auto kCode = absl::StatusCode::kFailedPrecondition;
  std::map<std::string_view, const AdapterTensorSpec*> missing;
  for (const AdapterTensorSpec& spec : allowed) missing[spec.name] = &spec;
  std::map<std::string_view, const AdapterTensorView*> given;
  for (const AdapterTensorView& tensor : tensors) {
    const std::string name(tensor.name);
    if (given.count(tensor.name) != 0)
      return NotAllowed(kCode, absl::StrCat("tensor ", name, " comes twice"));
    const auto spec = missing.find(tensor.name);
    if (spec == missing.end())
      return NotAllowed(kCode, absl::StrCat("tensor ", name, " is not the adapter's"));
    if (*tensor.shape != spec->second->shape) {
      return NotAllowed(
          kCode, absl::StrCat("tensor ", name, " has shape ", ShapeText(*tensor.shape), ", not ",
                              ShapeText(spec->second->shape)));
    }
    if (static_cast<int64_t>(tensor.values->size()) != Elements(*tensor.shape)) {
      return NotAllowed(kCode, absl::StrCat("tensor ", name, " has ", tensor.values->size(),
                                            " values, which is not its shape's number"));
    }
    if (!std::all_of(tensor.values->begin(), tensor.values->end(),
                     [](float value) { return std::isfinite(value); })) {
      return MakeError(kCode, "ARTIFACT_TENSOR_NOT_FINITE",
                       absl::StrCat("tensor ", name, " has a value that is not finite"));
    }
    given[tensor.name] = &tensor;
    missing.erase(spec);
  }
  if (!missing.empty()) {
    return NotAllowed(kCode,
                      absl::StrCat("tensor ", std::string(missing.begin()->first), " is missing"));
  }
  std::vector<TensorToWrite> out;
  out.reserve(allowed.size());
  for (const AdapterTensorSpec& spec : allowed) {
    const std::vector<float>& values = *given.at(spec.name)->values;
    out.push_back({spec.name, DType::kF32, spec.shape,
                   std::string_view(reinterpret_cast<const char*>(values.data()),
                                    values.size() * sizeof(float))});
  }
  return WriteSafetensors(out, {{"format", "pt"}});
}

absl::StatusOr<std::vector<AdapterTensor>> ReadAdapterModel(
    const std::vector<AdapterTensorSpec>& allowed, std::string_view bytes) {
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  BALLAST_ASSIGN_OR_RETURN(const SafetensorsView file, ParseSafetensors(bytes));
  std::vector<AdapterTensor> tensors;
  tensors.reserve(allowed.size());
  for (const AdapterTensorSpec& spec : allowed) {
    const auto found = file.tensors.find(spec.name);
    if (found == file.tensors.end())
      return NotAllowed(kCode, absl::StrCat("tensor ", spec.name, " is missing"));
    if (found->second.shape != spec.shape) {
      return NotAllowed(
          kCode, absl::StrCat("tensor ", spec.name, " has shape ", ShapeText(found->second.shape),
                              ", not ", ShapeText(spec.shape)));
    }
    BALLAST_ASSIGN_OR_RETURN(std::vector<float> values, ToFloats(spec.name, found->second));
    tensors.push_back({spec.name, spec.shape, std::move(values)});
  }
  if (file.tensors.size() != allowed.size()) {
    return NotAllowed(kCode, absl::StrCat("the file has ", file.tensors.size(), " tensors, not ",
                                          allowed.size()));
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const AdapterTensor& a, const AdapterTensor& b) { return a.name < b.name; });
  return tensors;
}

std::string WriteAdapterConfig(const AdapterConfig& config) {
  // PEFT checks and vLLM reads lora_alpha as an integer where it is one.
  Json alpha = config.alpha;
  if (config.alpha == std::floor(config.alpha)) alpha = static_cast<int64_t>(config.alpha);
  const Json json = {
      {"alpha_pattern", Json::object()},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", config.base_model_name},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"lora_alpha", alpha},
      {"lora_dropout", 0.0},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", config.rank},
      {"rank_pattern", Json::object()},
      {"revision", nullptr},
      {"target_modules", AdapterTargetModules()},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_rslora", false},
  };
  return json.dump(2) + "\n";
}

absl::StatusOr<AdapterConfig> ReadAdapterConfig(std::string_view text) {
  const auto invalid = [](std::string_view problem) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ADAPTER_CONFIG_INVALID",
                     absl::StrCat("adapter_config.json: ", std::string(problem)));
  };
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return invalid("it is not a JSON object");
  const auto rank = json.find("r");
  const auto alpha = json.find("lora_alpha");
  if (json.value("peft_type", Json()) != "LORA") return invalid("peft_type is not LORA");
  if (rank == json.end() || !rank->is_number_integer() || *rank < 1 || *rank > kMaxRank) {
    return invalid("r is missing or out of range");
  }
  if (alpha == json.end() || !alpha->is_number()) return invalid("lora_alpha is missing");
  for (const char* flag : {"use_dora", "use_rslora", "fan_in_fan_out"}) {
    if (json.value(flag, Json(false)) != false)
      return invalid(absl::StrCat(flag, " is not supported"));
  }
  AdapterConfig config;
  config.rank = rank->get<int>();
  config.alpha = alpha->get<double>();
  const auto base = json.find("base_model_name_or_path");
  if (base != json.end() && base->is_string()) config.base_model_name = base->get<std::string>();
  return config;
}

}  // namespace ballast::artifact
