// SPDX-License-Identifier: Apache-2.0
// A Llama in plain ATen with autograd, one document at a time, written from the published
// architecture without the engine's code: what the hand-written backward is compared with.
#ifndef BALLAST_WORKER_TRAIN_TESTING_REFERENCE_MODEL_H_
#define BALLAST_WORKER_TRAIN_TESTING_REFERENCE_MODEL_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "common/artifact/model_config.h"
#include "worker/trainer.h"

namespace ballast::worker::testing {

class ReferenceModel {
 public:
  // float32 weights of the folder. Throws on failure: for tests.
  explicit ReferenceModel(const std::string& folder);

  const artifact::ModelConfig& config() const { return config_; }

  // float32 [T, V].
  at::Tensor Logits(const std::vector<int32_t>& tokens,
                    const std::map<std::string, at::Tensor>& adapter, double scale) const;

  // Weighted mean loss of `rows` and its gradients by autograd, under the adapter's names.
  double Gradients(const std::vector<TokenRow>& rows, const Adapter& adapter,
                   const LoraConfig& lora, std::map<std::string, at::Tensor>& gradients) const;

 private:
  at::Tensor Linear(const std::string& module, const at::Tensor& x,
                    const std::map<std::string, at::Tensor>& adapter, double scale) const;
  at::Tensor Norm(const std::string& name, const at::Tensor& x) const;

  artifact::ModelConfig config_;
  std::map<std::string, at::Tensor> weights_;
};

}  // namespace ballast::worker::testing

#endif  // BALLAST_WORKER_TRAIN_TESTING_REFERENCE_MODEL_H_
