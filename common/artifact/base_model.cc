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

// Names from files may be hostile: only short and plain ones are repeated.
std::string Shown(const std::string& name) {
  bool plain = name.size() <= 200;
  for (const char c : name) plain = plain && std::isprint(static_cast<unsigned char>(c));
  return plain ? name : "(unprintable name)";
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
    // Some writers store the tied head again, and older ones the rotary frequencies.
    if (tied && name == "lm_head.weight") continue;
    if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
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

std::map<std::string, std::vector<int64_t>> ExpectedTensors(const ModelConfig& s) {
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

absl::StatusOr<std::set<std::string>> WeightFiles(const std::string& folder) {
  const std::string index_path = absl::StrCat(folder, "/", kIndex);
  if (!FileExists(index_path)) return std::set<std::string>{"model.safetensors"};
  BALLAST_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path, kMaxTextBytes));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty()) {
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

absl::StatusOr<BaseModelFacts> CheckBaseModelFolder(const std::string& folder) {
  const auto file_missing = [](const std::string& file) {
    return Error("FILE_MISSING", absl::StrCat(file, " is missing; import the whole folder"));
  };
  const std::string config_path = absl::StrCat(folder, "/config.json");
  if (!FileExists(config_path)) return file_missing("config.json");
  BALLAST_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path, kMaxTextBytes));
  BaseModelFacts facts;
  BALLAST_ASSIGN_OR_RETURN(facts.config, ParseModelConfig(config));
  BALLAST_ASSIGN_OR_RETURN(const auto files, WeightFiles(folder));
  auto missing = ExpectedTensors(facts.config);
  std::set<std::string> seen;
  for (const std::string& file : files) {
    const std::string path = absl::StrCat(folder, "/", file);
    if (!FileExists(path)) return file_missing(file);
    BALLAST_RETURN_IF_ERROR(CheckWeights(path, file, facts.config.tied_embeddings, missing, seen,
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
                                                            kIndex};
  bool plain = !file_name.empty() && file_name.size() <= 200 && file_name.front() != '.';
  for (const char c : file_name) {
    plain =
        plain && (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.');
  }
  const absl::string_view name = View(file_name);
  if (plain && (kTexts.count(file_name) != 0 || absl::EndsWith(name, ".safetensors"))) {
    return absl::OkStatus();
  }
  return Error("FILE_NOT_ALLOWED", absl::StrCat("a file of this name is not part of a base model: ",
                                                Shown(std::string(file_name)),
                                                "; leave it out. Allowed are *.safetensors, ",
                                                absl::StrJoin(kTexts, ", ")));
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
