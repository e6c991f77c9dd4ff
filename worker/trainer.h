// SPDX-License-Identifier: Apache-2.0
// The seam between the worker's agent (files, leases, gRPC) and its training engine. Free of torch
// types and of gRPC types, so that the engine could become a process of its own.
//
// An Engine is one loaded base model on one device. It trains customers' adapters under a security
// vector, trains vectors, and samples. The same engine serves one call at a time; Sample may be
// called from the Yield callback of a running Train (between micro-batches, vector off).
#ifndef BALLAST_WORKER_TRAINER_H_
#define BALLAST_WORKER_TRAINER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/secret.h"

namespace ballast::worker {

// One training example as tokens.
struct TokenRow {
  std::vector<int32_t> tokens;      // [T]
  std::vector<uint8_t> supervised;  // [T]; 1 where the token is a target (assistant text), else 0
  float weight = 1.0f;              // multiplies the row's loss
};

// Targets of a row: supervised tokens that have a token before them.
inline int64_t TargetCount(const TokenRow& row) {
  int64_t count = 0;
  for (size_t t = 1; t < row.supervised.size(); ++t) count += row.supervised[t] != 0 ? 1 : 0;
  return count;
}

// What a row counts for in the weighted mean that is a step's loss.
inline double LossWeight(const TokenRow& row) {
  return row.weight * static_cast<double>(TargetCount(row));
}

enum class VectorPolicy { kAlways, kByRow };
enum class Schedule { kCosine, kLinear, kConstant };
// kAuto: bf16 where the processor is fast with it, else fp32.
enum class Precision { kAuto, kBfloat16, kFloat32 };

struct LoraConfig {
  int rank = 16;
  float alpha = 32.0f;  // delta W = alpha / rank * B A
};

struct TrainConfig {
  LoraConfig lora;
  double learning_rate = 2e-4;
  int epochs = 1;
  int batch_rows = 16;  // rows per optimizer step
  // Packing budget; a longer row is a micro-batch of its own.
  int max_tokens_per_micro_batch = 2048;
  double warmup_ratio = 0.03;
  Schedule schedule = Schedule::kCosine;  // decays to zero
  double weight_decay = 0.0;
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;
  double max_gradient_norm = 1.0;
  uint64_t seed = 0;  // adapter initialisation and row order
  // Evenly spaced; the last step is always one. Step 0 (the base) comes on top. By row there are
  // fewer where they would be less than 10 steps apart.
  int evaluation_points = 10;
  int checkpoint_every_steps = 0;  // 0: none
  bool checkpoint_at_evaluations = false;
  VectorPolicy vector_policy = VectorPolicy::kAlways;
};

// Vector-off losses at an evaluation point: the only losses that leave the worker (S2).
struct Evaluation {
  int64_t step = 0;
  double training_loss = 0;  // mean over supervised tokens of a fixed sample of training rows
  std::optional<double> validation_loss;
};

struct Progress {
  int64_t step = 0;  // finished optimizer steps
  int64_t total_steps = 0;
  int64_t trained_tokens = 0;  // non-padding tokens of finished steps, without safety rows
};

// A named tensor of an adapter in the customer's hands: float32, row-major.
struct NamedTensor {
  std::string name;            // PEFT key
  std::vector<int64_t> shape;  // A: [rank, in]; B: [out, rank]
  std::vector<float> values;
};
using Adapter = std::vector<NamedTensor>;  // sorted by name

struct TrainCallbacks {
  // Once, before anything is trained: step 0, or that of the checkpoint. May be null.
  std::function<void(const Progress&)> started;
  // After every optimizer step.
  std::function<void(const Progress&)> progress;
  // At evaluation points.
  std::function<void(const Evaluation&)> evaluated;
  // Every checkpoint_every_steps and at evaluations, as configured, and once more before a stop by
  // kStopAndCheckpoint. Opaque bytes to resume from: adapter, moments, step, random state; never
  // the vector (S3). A failure is logged by the caller; training goes on.
  std::function<void(int64_t step, std::string bytes)> checkpoint;
  // Between micro-batches. Within one micro-batch kStop ends Train with CANCELLED, and
  // kStopAndCheckpoint with ABORTED (STOPPED_WITH_CHECKPOINT) after a last call of checkpoint.
  enum class Order { kContinue, kStop, kStopAndCheckpoint };
  std::function<Order()> yield;
};

struct TrainResult {
  Adapter adapter;
  Progress progress;
  std::vector<Evaluation> evaluations;
  // Of the request's rows, without safety rows, those that the vector was on for. For operators
  // only (S2).
  int64_t rows_under_vector = 0;
};

struct TrainRequest {
  TrainConfig config;
  std::vector<TokenRow> rows;
  // What the platform adds to a job (S3): each epoch draws so many of the safety rows anew
  // (dataset::DrawSafetyRows) and trains them among `rows` like these. They count in steps, but in
  // no training loss and no trained_tokens.
  std::vector<TokenRow> safety_rows;
  int64_t safety_rows_per_epoch = 0;
  std::vector<TokenRow> validation_rows;
  // The vector in clear (safetensors of a LoRA, see vault). Null for tests and benchmarks of the
  // engine itself, and for jobs on base models that are marked as unprotected.
  const SecretBuffer* vector = nullptr;
  // Bytes of an earlier checkpoint of the same request, or empty.
  std::string checkpoint;
  // Test hook of the parity suite: start from this adapter instead of the seed's. Empty in
  // production.
  Adapter initial_adapter;
};

struct VectorConfig {
  LoraConfig lora;
  double learning_rate = 1e-3;
  int epochs = 8;
  int batch_rows = 8;     // prohibited rows per step
  int kl_batch_rows = 8;  // benign rows per step
  double kl_weight =
      1.0;  // weight of KL(base || base + vector) on the benign rows' supervised tokens
  double max_gradient_norm = 1.0;
  // Steps that an attacker's LoRA takes on the same prohibited rows before each step of the vector;
  // it is new at each, and left out of the result (see InnerAdversary). 0: there is no attacker.
  int inner_steps = 0;
  double inner_learning_rate = 1e-3;
  // 5: every fifth row of both kinds is left out of the training, and the losses of the result are
  // of those rows. 0: none is, and they are of all rows.
  int hold_out_every = 0;
};

struct VectorResult {
  SecretBuffer tensors;  // safetensors bytes
  // For the operator only, never for a tenant.
  double prohibited_loss_without = 0, prohibited_loss_with = 0;
  double benign_loss_without = 0, benign_loss_with = 0;
};

// One term of a sum of adapters beside the base: weight * alpha / rank * B A.
struct AdapterInSum {
  const Adapter* adapter = nullptr;  // borrowed; null or empty: none
  LoraConfig lora;
  float weight = 1.0f;  // any finite number: a delta may be scaled, negated, or added to others
};

struct SampleConfig {
  int max_tokens = 128;
  double temperature = 0.0;  // 0: greedy
  uint64_t seed = 0;
};

struct EngineInfo {
  std::string architecture;  // "LlamaForCausalLM"
  int64_t parameters = 0;
  int64_t vocabulary = 0;
  int64_t context_tokens = 0;
  std::string device;     // "cpu" or "cuda:0 <name>"
  std::string precision;  // "bfloat16" or "float32"
};

struct EngineOptions {
  Precision precision = Precision::kAuto;
  int threads = 0;     // 0: number of cores
  std::string device;  // "", "cpu" or "cuda"; "" takes CUDA where it is
};

// Thread safety: not thread-safe, except that callbacks run on the calling thread.
// Failures: INVALID_ARGUMENT with reasons UNSUPPORTED_ARCHITECTURE, SAFETENSORS_*, TENSOR_MISMATCH
// for a bad model folder; TRAIN_CONFIG_INVALID, VECTOR_MISMATCH, ADAPTER_MISMATCH and others for a
// request that does not fit; CHECKPOINT_MISMATCH (FAILED_PRECONDITION), CHECKPOINT_CORRUPT
// (DATA_LOSS); LOSS_NOT_FINITE (FAILED_PRECONDITION) when training diverges; by order, CANCELLED
// (STOPPED) or ABORTED (STOPPED_WITH_CHECKPOINT); RESOURCE_EXHAUSTED (OUT_OF_MEMORY). Never throws.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual EngineInfo info() const = 0;

  virtual absl::StatusOr<TrainResult> Train(const TrainRequest& request,
                                            const TrainCallbacks& callbacks) = 0;

  // Trains a vector: cross-entropy on `prohibited`, KL to the base on `benign`. The seed comes from
  // the system's random source and is not kept (S5). `yield` and `progress` as in Train.
  virtual absl::StatusOr<VectorResult> TrainVector(const VectorConfig& config,
                                                   const std::vector<TokenRow>& prohibited,
                                                   const std::vector<TokenRow>& benign,
                                                   const TrainCallbacks& callbacks) = 0;

  // Generates after `prompt` with the clean base and `adapter` (may be empty), vector off. `token`
  // gets each new token and returns false to stop. Stops at any of `end_tokens`, which are not
  // passed on. `lora` gives the scale of `adapter`.
  virtual absl::Status Sample(const std::vector<int32_t>& prompt,
                              const std::vector<int32_t>& end_tokens, const SampleConfig& config,
                              const Adapter& adapter, const LoraConfig& lora,
                              const std::function<bool(int32_t)>& token) = 0;

  // The replies to all of `prompts` with the clean base and the sum of `adapters`, vector off, many
  // at a time. `go_on` (may be null) is asked after each token; false ends it with CANCELLED
  // (STOPPED).
  virtual absl::StatusOr<std::vector<std::vector<int32_t>>> SampleMany(
      const std::vector<std::vector<int32_t>>& prompts, const std::vector<int32_t>& end_tokens,
      const SampleConfig& config, const std::vector<AdapterInSum>& adapters,
      const std::function<bool()>& go_on) = 0;

  // float32 [rows, hidden size]: for each row the mean, over the tokens that predict a supervised
  // one, of the residual stream after a third of the clean base's layers. What is said in a row is
  // there already, at a third of a forward pass. A row without such a token has zeros. `go_on` as
  // in SampleMany.
  virtual absl::StatusOr<std::vector<std::vector<float>>> RowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) = 0;

  // RowFeatures of each of a row's windows (RowWindows), by row.
  virtual absl::StatusOr<std::vector<std::vector<std::vector<float>>>> WindowFeatures(
      const std::vector<TokenRow>& rows, const std::function<bool()>& go_on) = 0;

  // float32 logits [T, vocabulary] of `tokens` with the clean base and `adapter`. For tests and the
  // audit of a delivered delta; T * vocabulary floats of memory.
  virtual absl::StatusOr<std::vector<float>> Logits(const std::vector<int32_t>& tokens,
                                                    const Adapter& adapter,
                                                    const LoraConfig& lora) = 0;
};

// Loads the Hugging Face folder `model_folder` (config.json, *.safetensors).
absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const std::string& model_folder,
                                                   const EngineOptions& options);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAINER_H_
