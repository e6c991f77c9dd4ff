// SPDX-License-Identifier: Apache-2.0
#include "worker/train/testing/reference_model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/safetensors.h"
#include "common/base/file.h"

namespace ballast::worker::testing {

ReferenceModel::ReferenceModel(const std::string& folder) {
  config_ = artifact::ParseModelConfig(ReadFile(folder + "/config.json").value()).value();
  const std::string bytes = ReadFile(folder + "/model.safetensors").value();
  const artifact::SafetensorsView view = artifact::ParseSafetensors(bytes).value();
  for (const auto& [name, tensor] : view.tensors) {
    const auto type = tensor.dtype == artifact::DType::kF32   ? at::kFloat
                      : tensor.dtype == artifact::DType::kF16 ? at::kHalf
                                                              : at::kBFloat16;
    weights_[name] = at::from_blob(const_cast<char*>(tensor.bytes.data()), tensor.shape, type)
                         .to(at::kFloat, false, /*copy=*/true);
  }
  if (config_.tied_embeddings) weights_["lm_head.weight"] = weights_["model.embed_tokens.weight"];
}

at::Tensor ReferenceModel::Norm(const std::string& name, const at::Tensor& x) const {
  return x * at::rsqrt((x * x).mean(-1, true) + config_.rms_epsilon) *
         weights_.at(name + ".weight");
}

at::Tensor ReferenceModel::Linear(const std::string& module, const at::Tensor& x,
                                  const std::map<std::string, at::Tensor>& adapter,
                                  double scale) const {
  at::Tensor y = at::matmul(x, weights_.at("model." + module + ".weight").t());
  const std::string name = "base_model.model.model." + module;
  const auto a = adapter.find(name + ".lora_A.weight"), b = adapter.find(name + ".lora_B.weight");
  if (a == adapter.end()) return y;
  return y + at::matmul(at::matmul(x, a->second.t()), b->second.t()) * scale;
}

at::Tensor ReferenceModel::Logits(const std::vector<int32_t>& tokens,
                                  const std::map<std::string, at::Tensor>& adapter,
                                  double scale) const {
  const auto length = static_cast<int64_t>(tokens.size());
  const int64_t heads = config_.heads, kv = config_.kv_heads, d = config_.head_dim;
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  at::Tensor x = weights_.at("model.embed_tokens.weight").index_select(0, at::tensor(ids));
  const at::Tensor inverse =
      at::pow(config_.rope_theta, -at::arange(0, d, 2, at::kFloat) / static_cast<double>(d));
  const at::Tensor angle =
      at::outer(at::arange(length, at::kFloat), inverse).repeat({1, 2}).unsqueeze(1);
  const auto rotate = [&](const at::Tensor& t) {  // [T, heads, d]
    const auto halves = t.chunk(2, -1);
    return t * at::cos(angle) + at::cat({-halves[1], halves[0]}, -1) * at::sin(angle);
  };
  const at::Tensor mask =
      at::full({length, length}, -std::numeric_limits<float>::infinity()).triu(1);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const std::string prefix = absl::StrCat("layers.", layer, ".");
    const auto linear = [&](const char* module, const at::Tensor& input) {
      return Linear(prefix + module, input, adapter, scale);
    };
    const at::Tensor h = Norm("model." + prefix + "input_layernorm", x);
    const at::Tensor q = rotate(linear("self_attn.q_proj", h).view({length, heads, d}));
    const at::Tensor k = rotate(linear("self_attn.k_proj", h).view({length, kv, d}))
                             .repeat_interleave(heads / kv, 1);
    const at::Tensor v =
        linear("self_attn.v_proj", h).view({length, kv, d}).repeat_interleave(heads / kv, 1);
    const at::Tensor scores =
        at::matmul(q.transpose(0, 1), k.permute({1, 2, 0})) / std::sqrt(static_cast<double>(d)) +
        mask;
    const at::Tensor mixed = at::matmul(at::softmax(scores, -1), v.transpose(0, 1));
    x = x + linear("self_attn.o_proj", mixed.transpose(0, 1).reshape({length, heads * d}));
    const at::Tensor m = Norm("model." + prefix + "post_attention_layernorm", x);
    x = x +
        linear("mlp.down_proj", at::silu(linear("mlp.gate_proj", m)) * linear("mlp.up_proj", m));
  }
  return at::matmul(Norm("model.norm", x), weights_.at("lm_head.weight").t());
}

double ReferenceModel::Gradients(const std::vector<TokenRow>& rows, const Adapter& adapter,
                                 const LoraConfig& lora,
                                 std::map<std::string, at::Tensor>& gradients) const {
  std::map<std::string, at::Tensor> parameters;
  for (const NamedTensor& tensor : adapter) {
    parameters[tensor.name] =
        at::from_blob(const_cast<float*>(tensor.values.data()), tensor.shape, at::kFloat)
            .clone()
            .set_requires_grad(true);
  }
  at::Tensor sum = at::zeros({});
  double weight = 0;
  for (const TokenRow& row : rows) {
    const at::Tensor log_p = at::log_softmax(
        Logits(row.tokens, parameters, lora.alpha / static_cast<double>(lora.rank)), -1);
    for (size_t t = 1; t < row.tokens.size(); ++t) {
      if (row.supervised[t] == 0) continue;
      sum = sum - log_p[static_cast<int64_t>(t) - 1][row.tokens[t]] * row.weight;
      weight += row.weight;
    }
  }
  const at::Tensor loss = sum / weight;
  loss.backward();
  for (auto& [name, parameter] : parameters) gradients[name] = parameter.grad();
  return loss.item<double>();
}

}  // namespace ballast::worker::testing
