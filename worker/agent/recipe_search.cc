// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/recipe_search.h"

#include <algorithm>
#include <limits>

namespace ballast::worker::agent {
namespace {

// A neighbour beyond these is not tried.
constexpr double kMaxLearningRate = 0.02, kMaxKlWeight = 100;
constexpr int kMaxEpochs = 64, kMaxRank = 128;

bool Same(const VectorConfig& a, const VectorConfig& b) {
  return a.learning_rate == b.learning_rate && a.epochs == b.epochs && a.kl_weight == b.kl_weight &&
         a.lora.rank == b.lora.rank;
}

// Recipes that differ from `best` in one setting. The KL weight leads: it trades the one half of
// the score for the other.
std::vector<VectorConfig> Neighbours(const VectorConfig& best) {
  std::vector<VectorConfig> found;
  const auto add = [&](auto change) {
    VectorConfig recipe = best;
    change(recipe);
    found.push_back(recipe);
  };
  if (best.kl_weight > 0) {
    if (best.kl_weight * 3 <= kMaxKlWeight) add([](auto& recipe) { recipe.kl_weight *= 3; });
    add([](auto& recipe) { recipe.kl_weight /= 3; });
  }
  if (best.epochs * 2 <= kMaxEpochs) add([](auto& recipe) { recipe.epochs *= 2; });
  if (best.epochs >= 2) add([](auto& recipe) { recipe.epochs /= 2; });
  if (best.learning_rate * 2 <= kMaxLearningRate) {
    add([](auto& recipe) { recipe.learning_rate *= 2; });
  }
  add([](auto& recipe) { recipe.learning_rate /= 2; });
  const auto rank = [&](int changed) {
    add([&](auto& recipe) {
      recipe.lora.alpha *= static_cast<float>(changed) / static_cast<float>(recipe.lora.rank);
      recipe.lora.rank = changed;
    });
  };
  if (best.lora.rank * 2 <= kMaxRank) rank(best.lora.rank * 2);
  if (best.lora.rank >= 2) rank(best.lora.rank / 2);
  return found;
}

}  // namespace

double RecipeTrial::Score() const {
  if (!outcome.has_value()) return std::numeric_limits<double>::infinity();
  return outcome->prohibited_loss_ratio + std::max(0.0, outcome->benign_loss_added);
}

RecipeTrial::Outcome OutcomeOf(const VectorResult& result) {
  return {result.prohibited_loss_with / result.prohibited_loss_without,
          result.benign_loss_with - result.benign_loss_without};
}

std::optional<VectorConfig> RecipeSearch::Next() const {
  if (trials_.empty()) return start_;
  for (const VectorConfig& recipe : Neighbours(trials_[best()].recipe)) {
    const bool tried = std::any_of(trials_.begin(), trials_.end(), [&](const RecipeTrial& trial) {
      return Same(trial.recipe, recipe);
    });
    if (!tried && Fits(recipe)) return recipe;
  }
  return std::nullopt;
}

void RecipeSearch::Add(const RecipeTrial& trial, absl::Duration took) {
  trials_.push_back(trial);
  used_ += took;
  slowest_epoch_ = std::max(slowest_epoch_, took / trial.recipe.epochs);
}

size_t RecipeSearch::best() const {
  const auto found = std::min_element(
      trials_.begin(), trials_.end(),
      [](const RecipeTrial& a, const RecipeTrial& b) { return a.Score() < b.Score(); });
  return found - trials_.begin();
}

bool RecipeSearch::Fits(const VectorConfig& recipe) const {
  return used_ + slowest_epoch_ * recipe.epochs <= budget_;
}

}  // namespace ballast::worker::agent
