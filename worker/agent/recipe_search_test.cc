// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/recipe_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace ballast::worker::agent {
namespace {

VectorConfig Start() {
  VectorConfig start;
  start.lora = {.rank = 16, .alpha = 32.0f};
  return start;
}

RecipeTrial Trial(const VectorConfig& recipe, double ratio, double added = 0) {
  return {recipe, RecipeTrial::Outcome{ratio, added}};
}

// Runs the search on a score that is known; each epoch takes `epoch`.
void RunSearch(RecipeSearch& search, absl::Duration epoch,
               const std::function<double(const VectorConfig&)>& score) {
  while (const auto recipe = search.Next()) {
    ASSERT_LT(search.trials().size(), 1000) << "it does not end";
    search.Add(Trial(*recipe, score(*recipe)), epoch * recipe->epochs);
  }
}

TEST(RecipeSearchTest, WalksToTheBestRecipe) {
  RecipeSearch search(Start(), absl::Hours(10));
  const auto distance = [](double value, double best) { return std::abs(std::log(value / best)); };
  RunSearch(search, absl::Seconds(1), [&](const VectorConfig& recipe) {
    return distance(recipe.learning_rate, 4e-3) + distance(recipe.epochs, 4) +
           distance(static_cast<double>(recipe.lora.rank), 32) + distance(recipe.kl_weight, 9);
  });
  const VectorConfig best = search.trials()[search.best()].recipe;
  EXPECT_NEAR(best.learning_rate, 4e-3, 1e-9);
  EXPECT_EQ(best.epochs, 4);
  EXPECT_EQ(best.lora.rank, 32);
  EXPECT_EQ(best.lora.alpha, 64);
  EXPECT_NEAR(best.kl_weight, 9, 1e-9);
}

TEST(RecipeSearchTest, TriesTheStartFirstAndNoRecipeTwice) {
  RecipeSearch search(Start(), absl::Hours(10));
  RunSearch(search, absl::Seconds(1), [](const auto&) { return 1.0; });
  EXPECT_EQ(search.trials().size(), 9) << "the start and its eight neighbours";
  EXPECT_EQ(search.best(), 0) << "of equals the first";
  EXPECT_EQ(search.trials()[0].recipe.epochs, 8);
}

TEST(RecipeSearchTest, BeginsNothingThatDoesNotFitIntoTheBudget) {
  // 8 s the start; 16 s one with twice the epochs, which never fits.
  RecipeSearch search(Start(), absl::Seconds(30));
  RunSearch(search, absl::Seconds(1), [](const auto&) { return 1.0; });
  absl::Duration used;
  for (const RecipeTrial& trial : search.trials()) {
    EXPECT_LE(trial.recipe.epochs, 8);
    used += absl::Seconds(trial.recipe.epochs);
  }
  EXPECT_EQ(search.trials().size(), 4) << "8 + 8 + 8 + 4 s";
  EXPECT_LE(used, absl::Seconds(30));
}

TEST(RecipeSearchTest, TheStartIsTriedHoweverSmallTheBudget) {
  RecipeSearch search(Start(), absl::Seconds(1));
  RunSearch(search, absl::Minutes(1), [](const auto&) { return 1.0; });
  EXPECT_EQ(search.trials().size(), 1);
}

TEST(RecipeSearchTest, ATrainingThatBrokeDownIsTheWorst) {
  RecipeSearch search(Start(), absl::Hours(1));
  search.Add({Start(), std::nullopt}, absl::Seconds(8));
  EXPECT_EQ(search.best(), 0);
  search.Add(Trial(*search.Next(), 0.99, 5), absl::Seconds(8));
  EXPECT_EQ(search.best(), 1);
}

TEST(RecipeSearchTest, HarmToBenignRowsCountsAndGainsOnThemDoNot) {
  EXPECT_DOUBLE_EQ(Trial(Start(), 0.2, 0.3).Score(), 0.5);
  EXPECT_DOUBLE_EQ(Trial(Start(), 0.2, -0.3).Score(), 0.2);
}

TEST(RecipeSearchTest, AVectorWithoutKlStaysWithoutAndValuesStayInRange) {
  VectorConfig start = Start();
  start.kl_weight = 0;
  start.epochs = 1;
  start.lora = {.rank = 1, .alpha = 2.0f};
  start.learning_rate = 0.015;
  RecipeSearch search(start, absl::Hours(1));
  RunSearch(search, absl::Seconds(1), [](const auto&) { return 1.0; });
  for (const RecipeTrial& trial : search.trials()) {
    EXPECT_EQ(trial.recipe.kl_weight, 0);
    EXPECT_GE(trial.recipe.epochs, 1);
    EXPECT_GE(trial.recipe.lora.rank, 1);
    EXPECT_LE(trial.recipe.learning_rate, 0.02);
  }
  EXPECT_EQ(search.trials().size(), 4) << "epochs 2, half the rate, rank 2";
}

}  // namespace
}  // namespace ballast::worker::agent
