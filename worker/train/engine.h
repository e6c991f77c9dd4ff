// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_ENGINE_H_
#define BALLAST_WORKER_TRAIN_ENGINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/adapter_state.h"
#include "worker/train/inspect.h"
#include "worker/train/model.h"
#include "worker/trainer.h"

namespace ballast::worker {

// The Engine over libtorch. Exceptions of torch and of the allocator end here.
class TorchEngine final : public Engine {
 public:
  TorchEngine(std::unique_ptr<Model> model, std::string device_name)
      : model_(std::move(model)), device_name_(std::move(device_name)) {}

  EngineInfo info() const override;
  absl::StatusOr<TrainResult> Train(const TrainRequest& request,
                                    const TrainCallbacks& callbacks) override;
  absl::StatusOr<VectorResult> TrainVector(const VectorConfig& config,
                                           const std::vector<TokenRow>& prohibited,
                                           const std::vector<TokenRow>& benign,
                                           const TrainCallbacks& callbacks) override;
  absl::Status Sample(const std::vector<int32_t>& prompt, const std::vector<int32_t>& end_tokens,
                      const SampleConfig& config, const Adapter& adapter, const LoraConfig& lora,
                      const std::function<bool(int32_t)>& token) override;
  absl::StatusOr<std::vector<std::vector<int32_t>>> SampleMany(
      const std::vector<std::vector<int32_t>>& prompts, const std::vector<int32_t>& end_tokens,
      const SampleConfig& config, const std::vector<AdapterInSum>& sum,
      const std::function<bool()>& go_on) override;
  absl::StatusOr<std::vector<std::vector<float>>> RowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) override;
  absl::StatusOr<std::vector<std::vector<std::vector<float>>>> WindowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) override;
  absl::StatusOr<std::vector<float>> Logits(const std::vector<int32_t>& tokens,
                                            const Adapter& adapter,
                                            const LoraConfig& lora) override;

  // See inspect.h.
  absl::StatusOr<LossAndGradients> ComputeGradients(const std::vector<TokenRow>& rows,
                                                    const Adapter& adapter, const LoraConfig& lora,
                                                    const SecretBuffer* vector);
  absl::StatusOr<std::vector<double>> RowLosses(const std::vector<TokenRow>& rows,
                                                const Adapter& adapter, const LoraConfig& lora,
                                                const SecretBuffer* vector);
  absl::StatusOr<std::vector<double>> ExplainedRatios(const std::vector<TokenRow>& rows,
                                                      const SecretBuffer& vector);
  absl::StatusOr<Adapter> InitialAdapter(const LoraConfig& lora, uint64_t seed);

 private:
  // `method` of a Learner on the clean base's features.
  template <typename Result, typename Method>
  absl::StatusOr<Result> Features(const std::vector<TokenRow>& rows,
                                  const std::function<bool()>& go_on, Method method);
  // What a look inside needs: the weights with `vector` (null: the clean base) and `adapter`.
  struct Mounted {
    std::unique_ptr<LinearWeights> merged;
    LinearWeights* weights = nullptr;
    std::unique_ptr<AdapterState> state;
  };
  absl::StatusOr<Mounted> Mount(const Adapter& adapter, const LoraConfig& lora,
                                const SecretBuffer* vector);

  // Checks `tokens` for Sample and Logits.
  absl::Status CheckTokens(const std::vector<int32_t>& tokens, int64_t more) const;
  absl::Status CheckSample(const std::vector<std::vector<int32_t>>& prompts,
                           const SampleConfig& config) const;

  std::unique_ptr<Model> model_;
  std::string device_name_;
};

// Runs `function` and turns what it throws into a status: RESOURCE_EXHAUSTED OUT_OF_MEMORY, or
// INTERNAL ENGINE_FAILURE. The text of an internal exception goes to the log, not to the caller.
absl::Status CatchTorchErrors(const std::function<absl::Status()>& function);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_ENGINE_H_
