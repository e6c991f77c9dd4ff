// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TESTING_FAKE_ENGINE_H_
#define BALLAST_WORKER_TESTING_FAKE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/trainer.h"

namespace ballast::worker::testing {

// What a test sees of fake engines and tells them. One control may serve several engines.
// Thread safety: thread-safe.
class FakeEngineControl {
 public:
  // The prohibited loss under a vector that is trained next, instead of 0.25.
  void SetVectorLoss(std::function<absl::StatusOr<double>(const VectorConfig&)> loss);
  // Trainings stop before step `step` + 1 and keep yielding until Release or another HoldAt.
  void HoldAt(int64_t step);
  void Release();

  // Waits until a training has finished `step` steps (or more).
  void WaitForStep(int64_t step);

  // The next Train fails with `status` after `step` steps.
  void FailNext(absl::Status status, int64_t step);

  // Every later Train returns one tensor of this name too many.
  void AddTensorToResults(std::string name);

  // Later samples with an adapter reply with `tokens` instead of an echo; at other scales than
  // `scale` they echo all the same.
  void ReplyWithAdapter(std::vector<int32_t> tokens, float scale = 1.0f);

  // Waits until trainings have yielded `count` more times.
  void WaitForYields(int count);

  struct Seen {
    int loads = 0;
    int trainings = 0;
    int vector_trainings = 0;
    int held_out_trainings = 0;  // of these, with rows left out
    int samples = 0;
    int samples_while_training = 0;
    bool trained_without_vector = false;
    std::string vector;          // clear bytes of the last training's vector
    std::string trained_vector;  // clear bytes of the last vector made
    int64_t first_step = 0;      // of the last training: 0, or a checkpoint's
    TrainConfig config;          // of the last training
    VectorConfig vector_config;  // of the last vector training
    std::vector<TokenRow> rows;  // of the last training
    std::vector<TokenRow> prohibited_rows, benign_rows;  // of the last vector training
    std::vector<TokenRow> safety_rows;
    int64_t safety_rows_per_epoch = 0;
    std::vector<TokenRow> validation_rows;
    int screened_sets = 0;  // calls of RowFeatures
    size_t sample_adapter_tensors = 0;
    int sampled_sums = 0;               // calls of SampleMany
    std::vector<float> sampled_scales;  // of the adapters of these calls; 0 for the base alone
    SampleConfig sample_config;         // of the last one
    bool sampled_while_training = false;
    int64_t last_step = 0;
  };
  Seen seen() const;

 private:
  friend class FakeEngine;
  friend absl::StatusOr<std::unique_ptr<Engine>> LoadFakeEngine(const std::string&,
                                                                FakeEngineControl&);
  mutable absl::Mutex mutex_;
  Seen seen_ ABSL_GUARDED_BY(mutex_);
  int64_t hold_at_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
  int64_t yields_ ABSL_GUARDED_BY(mutex_) = 0;
  bool training_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status fail_ ABSL_GUARDED_BY(mutex_);
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string extra_tensor_ ABSL_GUARDED_BY(mutex_);
  std::function<absl::StatusOr<double>(const VectorConfig&)> vector_loss_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> adapter_reply_ ABSL_GUARDED_BY(mutex_);
  float adapter_reply_scale_ ABSL_GUARDED_BY(mutex_) = 0;
};

// An Engine without tensors: it counts steps, calls every callback as the real one does, and
// returns an adapter of the right names and shapes whose values follow from the configuration, the
// rows and nothing else. The vector leaves no trace in what it returns. A sample echoes the prompt
// without its end tokens. Deterministic, also across a checkpoint.
class FakeEngine : public Engine {
 public:
  FakeEngine(std::string config_json, FakeEngineControl& control)
      : config_json_(std::move(config_json)), control_(control) {}

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
      const SampleConfig& config, const std::vector<AdapterInSum>& adapters,
      const std::function<bool()>& go_on) override;
  // Shares of the supervised tokens by their remainder of 32.
  // One window a row.
  absl::StatusOr<std::vector<std::vector<std::vector<float>>>> WindowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) override;
  absl::StatusOr<std::vector<std::vector<float>>> RowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) override;
  absl::StatusOr<std::vector<float>> Logits(const std::vector<int32_t>& tokens,
                                            const Adapter& adapter,
                                            const LoraConfig& lora) override;

 private:
  absl::StatusOr<Progress> RunSteps(const TrainRequest& request, const TrainCallbacks& callbacks,
                                    std::vector<Evaluation>* evaluations);

  const std::string config_json_;
  FakeEngineControl& control_;
};

// A FakeEngine for the folder's config.json.
absl::StatusOr<std::unique_ptr<Engine>> LoadFakeEngine(const std::string& folder,
                                                       FakeEngineControl& control);

}  // namespace ballast::worker::testing

#endif  // BALLAST_WORKER_TESTING_FAKE_ENGINE_H_
