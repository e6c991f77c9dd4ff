// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/model_config.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using Json = nlohmann::json;

constexpr char kInvalid[] = "MODEL_CONFIG_INVALID";
constexpr char kUnsupported[] = "UNSUPPORTED_ARCHITECTURE";
// The engine keeps a rotary table of this many float32 for the whole context: half a gibibyte, a
// million positions of a head of 128. No tensor's shape depends on the context, so nothing else
// bounds it.
constexpr int64_t kMaxRotaryNumbers = int64_t{1} << 27;

absl::Status Unsupported(std::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, kUnsupported,
                   absl::StrCat("config.json: ", absl::string_view(what.data(), what.size()),
                                "; LlamaForCausalLM without biases and quantisation is supported"));
}

// A present, non-null member, or null.
const Json* Find(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<int64_t> PositiveInteger(const Json& json, const char* name, int64_t largest) {
  const Json* value = Find(json, name);
  if (value == nullptr || !value->is_number_integer()) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     absl::StrCat("config.json: ", name, " must be a whole number"));
  }
  // Read as double first: an unsigned value beyond int64 must not wrap around.
  const double wide = value->get<double>();
  if (wide < 1 || wide > static_cast<double>(largest)) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     absl::StrCat("config.json: ", name, " must be between 1 and ", largest));
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> PositiveNumber(const Json& json, const char* name, double fallback) {
  const Json* value = Find(json, name);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !(value->get<double>() > 0) || !std::isfinite(value->get<double>())) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     absl::StrCat("config.json: ", name, " must be a positive number"));
  }
  return value->get<double>();
}

bool IsTrue(const Json& json, const char* name) {
  const Json* value = Find(json, name);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::string TextOr(const Json& json, const char* name, const std::string& fallback) {
  const Json* value = Find(json, name);
  return value != nullptr && value->is_string() ? value->get<std::string>() : fallback;
}

// Names from files may be hostile: only short and plain ones are repeated.
std::string Shown(const std::string& name) {
  constexpr char kPlain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-()";
  return name.size() <= 64 && name.find_first_not_of(kPlain) == std::string::npos ? name
                                                                                  : "(unreadable)";
}

std::string RopeType(const Json& object) {
  return TextOr(object, "rope_type", TextOr(object, "type", "default"));
}

absl::Status ReadRope(const Json& json, ModelConfig& config) {
  // transformers 5 writes one object "rope_parameters"; before it were "rope_theta" and
  // "rope_scaling".
  const Json* parameters = Find(json, "rope_parameters");
  const Json* scaling = Find(json, "rope_scaling");
  if (parameters != nullptr && !parameters->is_object()) parameters = nullptr;
  if (scaling != nullptr && !scaling->is_object()) scaling = nullptr;
  BALLAST_ASSIGN_OR_RETURN(config.rope_theta, PositiveNumber(json, "rope_theta", 10000.0));
  if (parameters != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(config.rope_theta,
                             PositiveNumber(*parameters, "rope_theta", config.rope_theta));
  }
  const Json* stretched = nullptr;  // what describes Llama 3's scaling, if anything does
  for (const Json* object : {parameters, scaling}) {
    if (object == nullptr) continue;
    const std::string type = RopeType(*object);
    if (type != "default" && type != "llama3") {
      return Unsupported(absl::StrCat("rope scaling of type ", Shown(type)));
    }
    if (type == "llama3") stretched = object;
  }
  if (stretched == nullptr) return absl::OkStatus();
  Llama3RopeScaling llama3;
  BALLAST_ASSIGN_OR_RETURN(llama3.factor, PositiveNumber(*stretched, "factor", llama3.factor));
  BALLAST_ASSIGN_OR_RETURN(
      llama3.low_frequency_factor,
      PositiveNumber(*stretched, "low_freq_factor", llama3.low_frequency_factor));
  BALLAST_ASSIGN_OR_RETURN(
      llama3.high_frequency_factor,
      PositiveNumber(*stretched, "high_freq_factor", llama3.high_frequency_factor));
  BALLAST_ASSIGN_OR_RETURN(
      llama3.original_context,
      PositiveNumber(*stretched, "original_max_position_embeddings", llama3.original_context));
  if (llama3.high_frequency_factor <= llama3.low_frequency_factor) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     "config.json: high_freq_factor must be larger than low_freq_factor");
  }
  config.rope_scaling = llama3;
  return absl::OkStatus();
}

absl::Status CheckArchitecture(const Json& json, ModelConfig& config) {
  const Json* architectures = Find(json, "architectures");
  config.architecture = architectures != nullptr && architectures->is_array() &&
                                !architectures->empty() && architectures->front().is_string()
                            ? architectures->front().get<std::string>()
                            : "(none)";
  if (config.architecture != "LlamaForCausalLM") {
    return Unsupported(absl::StrCat("architecture ", Shown(config.architecture)));
  }
  if (IsTrue(json, "attention_bias")) return Unsupported("attention_bias is set");
  if (IsTrue(json, "mlp_bias")) return Unsupported("mlp_bias is set");
  if (TextOr(json, "hidden_act", "silu") != "silu") return Unsupported("hidden_act is not silu");
  if (Find(json, "quantization_config") != nullptr) return Unsupported("the weights are quantised");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     "config.json is not a JSON object");
  }
  ModelConfig config;
  BALLAST_RETURN_IF_ERROR(CheckArchitecture(json, config));
  BALLAST_ASSIGN_OR_RETURN(config.layers, PositiveInteger(json, "num_hidden_layers", 4096));
  BALLAST_ASSIGN_OR_RETURN(config.hidden, PositiveInteger(json, "hidden_size", 1 << 20));
  BALLAST_ASSIGN_OR_RETURN(config.intermediate,
                           PositiveInteger(json, "intermediate_size", 1 << 22));
  BALLAST_ASSIGN_OR_RETURN(config.heads, PositiveInteger(json, "num_attention_heads", 4096));
  BALLAST_ASSIGN_OR_RETURN(config.vocabulary, PositiveInteger(json, "vocab_size", 1 << 24));
  BALLAST_ASSIGN_OR_RETURN(config.context_tokens,
                           PositiveInteger(json, "max_position_embeddings", 1 << 24));
  config.kv_heads = config.heads;
  if (Find(json, "num_key_value_heads") != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(config.kv_heads, PositiveInteger(json, "num_key_value_heads", 4096));
  }
  config.head_dim = config.hidden / config.heads;
  if (Find(json, "head_dim") != nullptr) {
    BALLAST_ASSIGN_OR_RETURN(config.head_dim, PositiveInteger(json, "head_dim", 4096));
  }
  if (config.heads % config.kv_heads != 0 || config.head_dim % 2 != 0 || config.head_dim == 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, kInvalid,
        "config.json: num_attention_heads must be a multiple of num_key_value_heads and the "
        "head size even");
  }
  if (config.context_tokens * config.head_dim > kMaxRotaryNumbers) {
    return MakeError(absl::StatusCode::kInvalidArgument, kInvalid,
                     absl::StrCat("config.json: max_position_embeddings is ", config.context_tokens,
                                  "; with this size of a head at most ",
                                  kMaxRotaryNumbers / config.head_dim, " are supported"));
  }
  BALLAST_ASSIGN_OR_RETURN(config.rms_epsilon, PositiveNumber(json, "rms_norm_eps", 1e-6));
  BALLAST_RETURN_IF_ERROR(ReadRope(json, config));
  config.tied_embeddings = IsTrue(json, "tie_word_embeddings");
  return config;
}

}  // namespace ballast::artifact
