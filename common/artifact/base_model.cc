// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/base_model.h"

#include <cctype>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/artifact/safetensors.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxTextBytes = int64_t{64} << 20;
constexpr int64_t kMaxWeightBytes = int64_t{1} << 40;
constexpr char kIndex[] = "model.safetensors.index.json";

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

absl::Status Error(std::string_view reason, std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status Unsupported(std::string_view what) {
  return Error("UNSUPPORTED_ARCHITECTURE",
               absl::StrCat("config.json: ", View(what),
                            "; LlamaForCausalLM without biases and quantisation is supported"));
}

// Names from files may be hostile: only short and plain ones are repeated.
std::string Shown(const std::string& name) {
  bool plain = name.size() <= 200;
  for (const char c : name) plain = plain && std::isprint(static_cast<unsigned char>(c));
  return plain ? name : "(unprintable name)";
}

// A present, non-null member, or null.
const Json* Find(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<int64_t> PositiveInteger(const Json& json, const char* name, int64_t largest) {
  const Json* value = Find(json, name);
  if (value == nullptr || !value->is_number_integer()) {
    return Error("MODEL_CONFIG_INVALID",
                 absl::StrCat("config.json: ", name, " must be a whole number"));
  }
  // As a double first: an unsigned value beyond int64 must not wrap around.
  const double wide = value->get<double>();
  if (wide < 1 || wide > static_cast<double>(largest)) {
    return Error("MODEL_CONFIG_INVALID",
                 absl::StrCat("config.json: ", name, " must be from 1 to ", largest));
  }
  return value->get<int64_t>();
}

bool IsTrue(const Json& json, const char* name) {
  const Json* value = Find(json, name);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::string TextOr(const Json& json, const char* name, const std::string& fallback) {
  const Json* value = Find(json, name);
  return value != nullptr && value->is_string() ? value->get<std::string>() : fallback;
}

absl::Status CheckArchitecture(const Json& json, std::string* architecture) {
  const Json* names = Find(json, "architectures");
  if (names == nullptr || !names->is_array() || names->empty() || !names->front().is_string()) {
    return Unsupported("architectures names no model");
  }
  *architecture = names->front().get<std::string>();
  if (*architecture != "LlamaForCausalLM") {
    return Unsupported(absl::StrCat("architecture ", Shown(architecture->substr(0, 100))));
  }
  if (IsTrue(json, "attention_bias")) return Unsupported("attention_bias is set");
  if (IsTrue(json, "mlp_bias")) return Unsupported("mlp_bias is set");
  if (TextOr(json, "hidden_act", "silu") != "silu") return Unsupported("hidden_act is not silu");
  if (Find(json, "quantization_config") != nullptr) return Unsupported("the weights are quantised");
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* scaling = Find(json, name);
    if (scaling == nullptr || !scaling->is_object()) continue;
    const std::string type = TextOr(*scaling, "rope_type", TextOr(*scaling, "type", "default"));
    if (type != "default" && type != "llama3") {
      return Unsupported(absl::StrCat("rope scaling of type ", Shown(type)));
    }
  }
  return absl::OkStatus();
}

// The weight files of a folder.
absl::StatusOr<std::set<std::string>> WeightFiles(const std::string& folder) {
  const std::string index_path = absl::StrCat(folder, "/", kIndex);
  if (!FileExists(index_path)) return std::set<std::string>{"model.safetensors"};
  BALLAST_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path, kMaxTextBytes));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const Json* map = json.is_object() ? Find(json, "weight_map") : nullptr;
  if (map == nullptr || !map->is_object() || map->empty()) {
    return Error("MODEL_CONFIG_INVALID", absl::StrCat(kIndex, " has no object weight_map"));
  }
  std::set<std::string> files;
  for (const auto& entry : map->items()) {
    const std::string file = entry.value().is_string() ? entry.value().get<std::string>() : "";
    if (!absl::EndsWith(file, ".safetensors") || !CheckBaseModelFileName(file).ok()) {
      return Error("MODEL_CONFIG_INVALID",
                   absl::StrCat(kIndex, " names something that is no weight file"));
    }
    files.insert(file);
  }
  return files;
}

// Checks the header of one weight file and strikes its tensors from `missing`.
absl::Status CheckWeights(const std::string& path, const std::string& file, bool tied,
                          std::map<std::string, std::vector<int64_t>>& missing,
                          std::set<std::string>& seen, int64_t& parameters) {
  BALLAST_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::Open(path));
  const auto view = ParseSafetensors(mapped.bytes());
  if (!view.ok()) return Annotate(view.status(), file);
  for (const auto& [name, tensor] : view->tensors) {
    const auto mismatch = [&, name = name](const std::string& what) {
      return Error("TENSOR_MISMATCH", absl::StrCat(file, ": tensor ", Shown(name), " ", what));
    };
    if (!seen.insert(name).second) return mismatch("is there twice");
    if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 &&
        tensor.dtype != DType::kBF16) {
      return mismatch("is not of type F32, F16 or BF16");
    }
    // Some writers store the tied head again.
    if (tied && name == "lm_head.weight") continue;
    const auto expected = missing.find(name);
    if (expected == missing.end()) return mismatch("has no place in this architecture");
    if (tensor.shape != expected->second) {
      return mismatch(absl::StrCat("has the shape [", absl::StrJoin(tensor.shape, ", "), "], not [",
                                   absl::StrJoin(expected->second, ", "), "]"));
    }
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    parameters += elements;
    missing.erase(expected);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BaseModelShape> ParseBaseModelShape(std::string_view config_json) {
  const Json json = Json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return Error("MODEL_CONFIG_INVALID", "config.json is not a JSON object");
  }
  BaseModelShape shape;
  BALLAST_RETURN_IF_ERROR(CheckArchitecture(json, &shape.architecture));
  BALLAST_ASSIGN_OR_RETURN(shape.layers, PositiveInteger(json, "num_hidden_layers", 4096));
  BALLAST_ASSIGN_OR_RETURN(shape.hidden, PositiveInteger(json, "hidden_size", 1 << 20));
  BALLAST_ASSIGN_OR_RETURN(shape.intermediate, PositiveInteger(json, "intermediate_size", 1 << 22));
  BALLAST_ASSIGN_OR_RETURN(shape.heads, PositiveInteger(json, "num_attention_heads", 4096));
  BALLAST_ASSIGN_OR_RETURN(shape.vocabulary, PositiveInteger(json, "vocab_size", 1 << 24));
  BALLAST_ASSIGN_OR_RETURN(shape.context_tokens,
                           PositiveInteger(json, "max_position_embeddings", 1 << 24));
  shape.kv_heads = shape.heads;
  if (Find(json, "num_key_value_heads") != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(shape.kv_heads, PositiveInteger(json, "num_key_value_heads", 4096));
  }
  shape.head_dim = shape.hidden / shape.heads;
  if (Find(json, "head_dim") != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(shape.head_dim, PositiveInteger(json, "head_dim", 4096));
  }
  if (shape.heads % shape.kv_heads != 0 || shape.head_dim == 0 || shape.head_dim % 2 != 0) {
    return Error(
        "MODEL_CONFIG_INVALID",
        "config.json: num_attention_heads must be a multiple of num_key_value_heads, and the "
        "size of a head even");
  }
  shape.tied_embeddings = IsTrue(json, "tie_word_embeddings");
  return shape;
}

std::map<std::string, std::vector<int64_t>> ExpectedTensors(const BaseModelShape& s) {
  std::map<std::string, std::vector<int64_t>> tensors;
  tensors["model.embed_tokens.weight"] = {s.vocabulary, s.hidden};
  tensors["model.norm.weight"] = {s.hidden};
  if (!s.tied_embeddings) tensors["lm_head.weight"] = {s.vocabulary, s.hidden};
  const int64_t q = s.heads * s.head_dim;
  const int64_t kv = s.kv_heads * s.head_dim;
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    tensors[prefix + "input_layernorm.weight"] = {s.hidden};
    tensors[prefix + "post_attention_layernorm.weight"] = {s.hidden};
    tensors[prefix + "self_attn.q_proj.weight"] = {q, s.hidden};
    tensors[prefix + "self_attn.k_proj.weight"] = {kv, s.hidden};
    tensors[prefix + "self_attn.v_proj.weight"] = {kv, s.hidden};
    tensors[prefix + "self_attn.o_proj.weight"] = {s.hidden, q};
    tensors[prefix + "mlp.gate_proj.weight"] = {s.intermediate, s.hidden};
    tensors[prefix + "mlp.up_proj.weight"] = {s.intermediate, s.hidden};
    tensors[prefix + "mlp.down_proj.weight"] = {s.hidden, s.intermediate};
  }
  return tensors;
}

absl::StatusOr<BaseModelFacts> CheckBaseModelFolder(const std::string& folder) {
  const auto file_missing = [](const std::string& file) {
    return Error("FILE_MISSING", absl::StrCat(file, " is missing; import the whole folder"));
  };
  const std::string config_path = absl::StrCat(folder, "/config.json");
  if (!FileExists(config_path)) return file_missing("config.json");
  BALLAST_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path, kMaxTextBytes));
  BaseModelFacts facts;
  BALLAST_ASSIGN_OR_RETURN(facts.shape, ParseBaseModelShape(config));
  BALLAST_ASSIGN_OR_RETURN(const auto files, WeightFiles(folder));
  auto missing = ExpectedTensors(facts.shape);
  std::set<std::string> seen;
  for (const std::string& file : files) {
    const std::string path = absl::StrCat(folder, "/", file);
    if (!FileExists(path)) return file_missing(file);
    BALLAST_RETURN_IF_ERROR(CheckWeights(path, file, facts.shape.tied_embeddings, missing, seen,
                                         facts.parameter_count));
  }
  if (!missing.empty()) {
    return Error("TENSOR_MISMATCH",
                 absl::StrCat("tensor ", missing.begin()->first, " is missing (and ",
                              missing.size() - 1, " more)"));
  }
  return facts;
}

absl::Status CheckBaseModelFileName(std::string_view file_name) {
  static const std::set<std::string, std::less<>> kTexts = {"config.json",
                                                            "generation_config.json",
                                                            "tokenizer.json",
                                                            "tokenizer_config.json",
                                                            "special_tokens_map.json",
                                                            "added_tokens.json",
                                                            "vocab.json",
                                                            "merges.txt",
                                                            "chat_template.jinja",
                                                            kIndex,
                                                            "README.md"};
  bool plain = !file_name.empty() && file_name.size() <= 200 && file_name.front() != '.';
  for (const char c : file_name) {
    plain =
        plain && (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.');
  }
  const absl::string_view name = View(file_name);
  if (plain && (kTexts.count(file_name) != 0 || absl::EndsWith(name, ".safetensors") ||
                absl::StartsWith(name, "LICENSE") || absl::StartsWith(name, "NOTICE"))) {
    return absl::OkStatus();
  }
  return Error(
      "FILE_NOT_ALLOWED",
      absl::StrCat("a file of this name is not part of a base model: ",
                   Shown(std::string(file_name)), "; leave it out. Allowed are *.safetensors, ",
                   absl::StrJoin(kTexts, ", "), ", LICENSE* and NOTICE*"));
}

int64_t MaxBaseModelFileBytes(std::string_view file_name) {
  return absl::EndsWith(View(file_name), ".safetensors") ? kMaxWeightBytes : kMaxTextBytes;
}

std::string BaseModelDigest(const std::map<std::string, std::string>& file_digests) {
  Sha256 sha;
  for (const auto& [name, digest] : file_digests) sha.Update(absl::StrCat(name, " ", digest, "\n"));
  return sha.Finish();
}

}  // namespace ballast::artifact
