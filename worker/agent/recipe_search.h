// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_RECIPE_SEARCH_H_
#define BALLAST_WORKER_AGENT_RECIPE_SEARCH_H_

#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// A recipe and what its vector did to rows that the training left out.
struct RecipeTrial {
  // Of the loss of prohibited rows, the part that is left under the vector; and what it adds to the
  // loss of benign rows, in nats.
  struct Outcome {
    double prohibited_loss_ratio = 0;
    double benign_loss_added = 0;
  };
  VectorConfig recipe;
  std::optional<Outcome> outcome;  // unset: the training broke down

  // What the search makes small: the part of the prohibited loss that is left, which an attack
  // could still learn from, plus what the vector does to harmless rows, which its customers would
  // pay for. Infinite without an outcome.
  double Score() const;
};

RecipeTrial::Outcome OutcomeOf(const VectorResult& result);

// Looks for the recipe of a vector by coordinate search: learning rate, epochs, rank and KL weight
// of the best recipe so far are doubled or halved (the KL weight times or over three), one at a
// time, until no neighbour is better or the budget is used up. Thread safety: not thread-safe.
class RecipeSearch {
 public:
  RecipeSearch(const VectorConfig& start, absl::Duration budget) : start_(start), budget_(budget) {}

  // The next recipe to try, the start first; nullopt at the end. A recipe is not begun that would
  // take longer than what is left of the budget, by the slowest epoch so far; the start always is.
  std::optional<VectorConfig> Next() const;
  void Add(const RecipeTrial& trial, absl::Duration took);

  const std::vector<RecipeTrial>& trials() const { return trials_; }
  // Index of the best trial, the first of equals. At least one must have been added.
  size_t best() const;

 private:
  bool Fits(const VectorConfig& recipe) const;

  const VectorConfig start_;
  const absl::Duration budget_;
  absl::Duration used_, slowest_epoch_;
  std::vector<RecipeTrial> trials_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_RECIPE_SEARCH_H_
