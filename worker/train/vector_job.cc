// SPDX-License-Identifier: Apache-2.0
#include "worker/train/vector_job.h"

#include <ATen/ATen.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/safetensors.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::worker {
namespace {

constexpr int64_t kMicroBatchTokens = 2048;
// Warm-up and linear decay to a tenth, as in the prototypes.
constexpr double kWarmupRatio = 0.05, kFinalRate = 0.1;

absl::Status RandomBytes(void* bytes, size_t count) {
  if (RAND_bytes(static_cast<unsigned char*>(bytes), static_cast<int>(count)) == 1) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kInternal, "RANDOM_SOURCE_FAILED",
                   "the system's random source failed; a vector cannot be trained without it");
}

// A random permutation of [0, count).
absl::StatusOr<std::vector<int64_t>> RandomOrder(int64_t count) {
  std::vector<uint64_t> keys(count);
  BALLAST_RETURN_IF_ERROR(RandomBytes(keys.data(), keys.size() * sizeof(uint64_t)));
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  return order;
}

// A uniform in +-1/sqrt(in) (as InitialiseLora), each number straight from the random source; B
// zero.
absl::Status RandomStart(const LoraLayout& layout, float* flat) {
  std::fill(flat, flat + layout.size(), 0.0f);
  for (const LoraSlot& slot : layout.slots()) {
    if (slot.is_b) continue;
    const int64_t count = slot.rows * slot.columns;
    SecretBuffer bits(count * sizeof(uint32_t));
    BALLAST_RETURN_IF_ERROR(RandomBytes(bits.data(), bits.size()));
    const auto* numbers = reinterpret_cast<const uint32_t*>(bits.data());
    const double bound = 1.0 / std::sqrt(static_cast<double>(slot.columns));
    for (int64_t i = 0; i < count; ++i) {
      flat[slot.offset + i] = static_cast<float>((2 * (numbers[i] * 0x1p-32) - 1) * bound);
    }
  }
  return absl::OkStatus();
}

// Splits rows into micro-batches of at most kMicroBatchTokens tokens (a longer row alone), in
// order.
std::vector<std::vector<int64_t>> Split(const std::vector<TokenRow>& rows,
                                        const std::vector<int64_t>& chosen) {
  std::vector<std::vector<int64_t>> result;
  int64_t tokens = 0;
  for (const int64_t row : chosen) {
    const auto length = static_cast<int64_t>(rows[row].tokens.size());
    if (result.empty() || tokens + length > kMicroBatchTokens) {
      result.emplace_back();
      tokens = 0;
    }
    result.back().push_back(row);
    tokens += length;
  }
  return result;
}

PackedBatch PackRows(const std::vector<TokenRow>& rows, const std::vector<int64_t>& chosen,
                     at::Device device) {
  std::vector<const TokenRow*> pointers;
  pointers.reserve(rows.size());
  for (const int64_t row : chosen) pointers.push_back(&rows[row]);
  return Pack(pointers, device);
}

double TotalWeight(const std::vector<TokenRow>& rows, const std::vector<int64_t>& chosen) {
  double total = 0;
  for (const int64_t row : chosen) total += LossWeight(rows[row]);
  return total;
}

// Deals out rows in random order, again from a new order when all were dealt.
class Deck {
 public:
  explicit Deck(int64_t count) : count_(count) {}
  absl::StatusOr<std::vector<int64_t>> Deal(int64_t wanted) {
    std::vector<int64_t> dealt;
    while (static_cast<int64_t>(dealt.size()) < std::min(wanted, count_)) {
      if (next_ == static_cast<int64_t>(order_.size())) {
        BALLAST_ASSIGN_OR_RETURN(order_, RandomOrder(count_));
        next_ = 0;
      }
      dealt.push_back(order_[next_++]);
    }
    return dealt;
  }

 private:
  int64_t count_;
  int64_t next_ = 0;
  std::vector<int64_t> order_;
};

// Takes every n-th of `rows` out, the n-th first, and returns them; none for 0.
std::vector<TokenRow> HoldOut(std::vector<TokenRow>& rows, int every) {
  std::vector<TokenRow> kept, held_out;
  if (every == 0) return held_out;
  for (size_t i = 0; i < rows.size(); ++i) {
    ((i + 1) % every == 0 ? held_out : kept).push_back(std::move(rows[i]));
  }
  rows = std::move(kept);
  return held_out;
}

absl::Status CheckVectorConfig(const VectorConfig& config, const artifact::ModelConfig& model) {
  BALLAST_RETURN_IF_ERROR(CheckLora(config.lora, model));
  const auto invalid = [](const char* field, const char* expected) {
    return FieldError(field, "VECTOR_CONFIG_INVALID", absl::StrCat(field, " must be ", expected));
  };
  if (!(config.learning_rate > 0) || config.learning_rate > 1) {
    return invalid("learning_rate", "above 0 and at most 1");
  }
  if (config.epochs < 1) return invalid("epochs", "at least 1");
  if (config.batch_rows < 1) return invalid("batch_rows", "at least 1");
  if (config.kl_batch_rows < 1) return invalid("kl_batch_rows", "at least 1");
  if (!(config.kl_weight >= 0) || !std::isfinite(config.kl_weight)) {
    return invalid("kl_weight", "0 or a positive number");
  }
  if (!(config.max_gradient_norm >= 0)) {
    return invalid("max_gradient_norm", "0 (no clipping) or a positive number");
  }
  if (config.inner_steps < 0) return invalid("inner_steps", "0 or a positive number");
  if (!(config.inner_learning_rate > 0) || config.inner_learning_rate > 1) {
    return invalid("inner_learning_rate", "above 0 and at most 1");
  }
  if (config.hold_out_every != 0 && config.hold_out_every < 2) {
    return invalid("hold_out_every", "0 or at least 2");
  }
  return absl::OkStatus();
}

}  // namespace

VectorJob::VectorJob(Model& model, const VectorConfig& config,
                     const std::vector<TokenRow>& prohibited, const std::vector<TokenRow>& benign,
                     const TrainCallbacks& callbacks)
    : model_(model),
      config_(config),
      prohibited_(prohibited),
      benign_(benign),
      callbacks_(callbacks),
      learner_(model) {}

VectorJob::~VectorJob() {
  if (state_) state_->Wipe();
  learner_.workspace().Clear(/*wipe=*/true);
  // Its B lies in the clean base's columns.
  model_.clean->ClearAdapter();
}

absl::StatusOr<VectorResult> VectorJob::Run() {
  BALLAST_RETURN_IF_ERROR(Prepare());
  VectorResult result;
  BALLAST_RETURN_IF_ERROR(
      MeasureLosses(nullptr, result.prohibited_loss_without, result.benign_loss_without));
  BALLAST_RETURN_IF_ERROR(RememberBase());

  const auto rows = static_cast<int64_t>(prohibited_.size());
  const int64_t steps_per_epoch = (rows - 1) / config_.batch_rows + 1;
  const int64_t total = steps_per_epoch * config_.epochs;
  Deck benign_deck(static_cast<int64_t>(benign_.size()));
  Progress progress{.total_steps = total};
  std::vector<int64_t> order;
  for (int64_t step = 0; step < total; ++step) {
    const int64_t in_epoch = step % steps_per_epoch;
    if (in_epoch == 0) {
      BALLAST_ASSIGN_OR_RETURN(order, RandomOrder(rows));
    }
    const int64_t begin = in_epoch * config_.batch_rows;
    const int64_t end = std::min<int64_t>(begin + config_.batch_rows, rows);
    const std::vector<int64_t> chosen(order.begin() + begin, order.begin() + end);
    BALLAST_ASSIGN_OR_RETURN(const std::vector<int64_t> benign,
                             benign_deck.Deal(config_.kl_batch_rows));
    BALLAST_RETURN_IF_ERROR(TrainStep(chosen, benign, step, total));
    progress.step = step + 1;
    for (const int64_t row : chosen) {
      progress.trained_tokens += static_cast<int64_t>(prohibited_[row].tokens.size());
    }
    for (const int64_t row : benign) {
      progress.trained_tokens += static_cast<int64_t>(benign_[row].tokens.size());
    }
    if (callbacks_.progress) callbacks_.progress(progress);
  }
  BALLAST_RETURN_IF_ERROR(
      MeasureLosses(&*state_, result.prohibited_loss_with, result.benign_loss_with));
  // The last update may have broken it: a vector that is not finite would fail its customers' jobs.
  if (!std::isfinite(result.prohibited_loss_with) || !std::isfinite(result.benign_loss_with)) {
    return LossNotFinite();
  }
  BALLAST_ASSIGN_OR_RETURN(result.tensors, Export());
  return result;
}

absl::Status VectorJob::MeasureLosses(const AdapterState* state, double& prohibited,
                                      double& benign) {
  const auto yield = [this] { return Yield(); };
  const bool held_out = config_.hold_out_every > 0;
  BALLAST_ASSIGN_OR_RETURN(
      prohibited, learner_.MeanLoss(PointersTo(held_out ? held_out_prohibited_ : prohibited_),
                                    *model_.clean, state, kMicroBatchTokens, yield));
  BALLAST_ASSIGN_OR_RETURN(
      benign, learner_.MeanLoss(PointersTo(held_out ? held_out_benign_ : benign_), *model_.clean,
                                state, kMicroBatchTokens, yield));
  return absl::OkStatus();
}

absl::Status VectorJob::Prepare() {
  BALLAST_RETURN_IF_ERROR(CheckVectorConfig(config_, model_.config));
  BALLAST_RETURN_IF_ERROR(CheckRows(prohibited_, model_.config, "prohibited"));
  BALLAST_RETURN_IF_ERROR(CheckRows(benign_, model_.config, "benign"));
  held_out_prohibited_ = HoldOut(prohibited_, config_.hold_out_every);
  held_out_benign_ = HoldOut(benign_, config_.hold_out_every);
  LoraConfig lora = config_.lora;
  if (config_.inner_steps > 0) {
    lora.rank *= 2;
    lora.alpha *= 2;
  }
  model_.clean->Reserve(lora.rank);
  state_.emplace(model_, lora);
  SecretBuffer start(state_->layout().size() * sizeof(float));
  auto* flat = reinterpret_cast<float*>(start.data());
  BALLAST_RETURN_IF_ERROR(RandomStart(state_->layout(), flat));
  state_->SetParameters(flat);
  if (config_.inner_steps > 0) attacker_.emplace(*state_, config_.lora.rank);
  return absl::OkStatus();
}

absl::Status VectorJob::RememberBase() {
  base_normed_.resize(benign_.size());
  std::vector<int64_t> all(benign_.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  for (const std::vector<int64_t>& rows : Split(benign_, all)) {
    BALLAST_RETURN_IF_ERROR(Yield());
    const PackedBatch batch = PackRows(benign_, rows, model_.device);
    if (batch.target_count() == 0) continue;
    const at::Tensor normed = learner_.BaseNormed(batch, *model_.clean);
    int64_t begin = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      base_normed_[rows[i]] = normed.narrow(0, begin, batch.row_targets[i]).clone();
      begin += batch.row_targets[i];
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> VectorJob::AccumulateProhibited(const std::vector<int64_t>& prohibited) {
  double loss = 0;
  const double weight = TotalWeight(prohibited_, prohibited);
  for (const std::vector<int64_t>& rows : Split(prohibited_, prohibited)) {
    BALLAST_RETURN_IF_ERROR(Yield());
    if (!(weight > 0)) break;
    loss += learner_.Accumulate(PackRows(prohibited_, rows, model_.device), *model_.clean, *state_,
                                weight);
  }
  return loss;
}

absl::Status VectorJob::TrainAttacker(const std::vector<int64_t>& prohibited) {
  SecretBuffer start(state_->layout().size() * sizeof(float));
  auto* flat = reinterpret_cast<float*>(start.data());
  BALLAST_RETURN_IF_ERROR(RandomStart(state_->layout(), flat));
  attacker_->Restart(flat);
  for (int step = 0; step < config_.inner_steps; ++step) {
    BALLAST_RETURN_IF_ERROR(AccumulateProhibited(prohibited).status());
    attacker_->Step(config_.inner_learning_rate);
  }
  return absl::OkStatus();
}

absl::Status VectorJob::TrainStep(const std::vector<int64_t>& prohibited,
                                  const std::vector<int64_t>& benign, int64_t step,
                                  int64_t total_steps) {
  state_->ClearGradients();
  if (attacker_) BALLAST_RETURN_IF_ERROR(TrainAttacker(prohibited));
  BALLAST_ASSIGN_OR_RETURN(double loss, AccumulateProhibited(prohibited));
  // What the vector does to harmless rows is its own.
  if (attacker_) attacker_->Remove();
  const double benign_weight = config_.kl_weight > 0 ? TotalWeight(benign_, benign) : 0;
  for (const std::vector<int64_t>& rows : Split(benign_, benign)) {
    BALLAST_RETURN_IF_ERROR(Yield());
    if (!(benign_weight > 0)) break;
    const PackedBatch batch = PackRows(benign_, rows, model_.device);
    if (batch.target_count() == 0) continue;
    std::vector<at::Tensor> base;
    for (const int64_t row : rows) {
      if (base_normed_[row].defined()) base.push_back(base_normed_[row]);
    }
    loss += learner_.AccumulateKl(batch, at::cat(base), *model_.clean, *state_,
                                  benign_weight / config_.kl_weight);
  }
  if (!std::isfinite(loss)) return LossNotFinite();
  if (attacker_) attacker_->DropGradients();
  const double progress = static_cast<double>(step) / static_cast<double>(total_steps);
  const double warmup = std::max(1.0, kWarmupRatio * static_cast<double>(total_steps));
  const double rate = config_.learning_rate *
                      std::min(1.0, static_cast<double>(step + 1) / warmup) *
                      (1 - progress * (1 - kFinalRate));
  return state_->Step({.learning_rate = static_cast<float>(rate), .step = step + 1},
                      config_.max_gradient_norm);
}

absl::Status VectorJob::Yield() const {
  if (!callbacks_.yield || callbacks_.yield() == TrainCallbacks::Order::kContinue) {
    return absl::OkStatus();
  }
  // A vector has no checkpoints: it never leaves memory before it is sealed.
  return MakeError(absl::StatusCode::kCancelled, "STOPPED", "training was stopped by order");
}

absl::StatusOr<SecretBuffer> VectorJob::Export() const {
  // The vector's ranks alone, in memory that is wiped.
  const LoraLayout layout(model_.config, config_.lora.rank);
  SecretBuffer alone(layout.size() * sizeof(float));
  auto* flat = reinterpret_cast<char*>(alone.data());
  std::vector<artifact::TensorToWrite> tensors;
  for (size_t i = 0; i < layout.slots().size(); ++i) {
    const LoraSlot& slot = layout.slots()[i];
    const LoraSlot& trained = state_->layout().slots()[i];
    at::from_blob(flat + slot.offset * sizeof(float), {slot.rows, slot.columns}, at::kFloat)
        .copy_(state_->ParametersTensor()
                   .narrow(0, trained.offset, trained.rows * trained.columns)
                   .view({trained.rows, trained.columns})
                   .narrow(slot.is_b ? 1 : 0, 0, config_.lora.rank));
    tensors.push_back({layout.VectorName(slot),
                       artifact::DType::kF32,
                       {slot.rows, slot.columns},
                       std::string_view(flat + slot.offset * sizeof(float),
                                        slot.rows * slot.columns * sizeof(float))});
  }
  const std::map<std::string, std::string> metadata = {{"format", "ballast-vector-1"},
                                                       {"rank", absl::StrCat(config_.lora.rank)},
                                                       {"alpha", absl::StrCat(config_.lora.alpha)}};
  SecretBuffer bytes(artifact::SafetensorsSize(tensors, metadata));
  artifact::WriteSafetensorsTo(tensors, metadata, bytes.data());
  return bytes;
}

}  // namespace ballast::worker
