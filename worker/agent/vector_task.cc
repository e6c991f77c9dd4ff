// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "common/dataset/topics.h"
#include "worker/agent/recipe_search.h"
#include "worker/agent/row_reader.h"
#include "worker/agent/self_made_rows.h"
#include "worker/agent/task_internal.h"

namespace ballast::worker::agent {
namespace {

absl::StatusOr<std::vector<TokenRow>> ReadBlobRows(const std::string& blob, const LoadedBase& base,
                                                   const BaseCache::Fetch& fetch) {
  pb::DatasetBlob dataset;
  dataset.set_blob(blob);
  return ReadRows(dataset, base.text, base.info.context_tokens, fetch);
}

// The rows that were sent, or those that are made of topics.
absl::StatusOr<VectorRows> RowsOf(TaskEnvironment& environment, const pb::Work::TrainVector& task,
                                  LoadedBase& base, const BaseCache::Fetch& fetch) {
  VectorRows rows;
  if (task.topics_blob().empty()) {
    BALLAST_ASSIGN_OR_RETURN(rows.prohibited, ReadBlobRows(task.prohibited_blob(), base, fetch));
    BALLAST_ASSIGN_OR_RETURN(rows.benign, ReadBlobRows(task.benign_blob(), base, fetch));
    return rows;
  }
  BALLAST_ASSIGN_OR_RETURN(const std::string text,
                           environment.client.ReadBlobToMemory(
                               {environment.session.lease(), ""}, task.topics_blob(),
                               dataset::kMaxTopicsBytes, environment.session.interrupt()));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<std::string> topics, dataset::ParseTopics(text));
  const TrainCallbacks callbacks = SessionCallbacks(environment, base);
  const auto go_on = [&environment] { return CheckOrder(environment.session).ok(); };
  return MakeVectorRows(*base.engine, base.text, topics, go_on, [&] { callbacks.yield(); });
}

// Of the rows, a search judges recipes by every fifth.
constexpr int kHoldOutEvery = 5;
// What the lease shows of a search and the training after it: thousandths, of which the search has
// the first part.
constexpr int64_t kWholeProgress = 1000, kSearchProgress = 800;

// Trainings one after the other that the lease shows as one.
class TrainingParts {
 public:
  explicit TrainingParts(TrainCallbacks whole) : whole_(std::move(whole)) {}
  // Callbacks of the next training; its progress is shown as the thousandths from `begin` to `end`.
  TrainCallbacks Next(int64_t begin, int64_t end) {
    TrainCallbacks callbacks = whole_;
    callbacks.progress = [this, begin, end, before = trained_tokens_](const Progress& own) {
      trained_tokens_ = before + own.trained_tokens;
      const int64_t steps = std::max<int64_t>(1, own.total_steps);
      whole_.progress({.step = begin + (end - begin) * own.step / steps,
                       .total_steps = kWholeProgress,
                       .trained_tokens = trained_tokens_});
    };
    return callbacks;
  }

 private:
  TrainCallbacks whole_;
  int64_t trained_tokens_ = 0;
};

// Tries recipes around `start` within `budget`. No vector of a trial outlives it.
absl::StatusOr<RecipeSearch> SearchRecipe(Engine& engine, const VectorRows& rows,
                                          const VectorConfig& start, absl::Duration budget,
                                          Clock& clock, TrainingParts& parts) {
  RecipeSearch search(start, budget);
  const absl::Time begin = clock.Now();
  while (auto recipe = search.Next()) {
    const absl::Time trial_begin = clock.Now();
    const double used = std::min(1.0, absl::FDivDuration(trial_begin - begin, budget));
    const auto shown = static_cast<int64_t>(kSearchProgress * used);
    recipe->hold_out_every = kHoldOutEvery;
    const auto result =
        engine.TrainVector(*recipe, rows.prohibited, rows.benign, parts.Next(shown, shown));
    RecipeTrial trial = {*recipe, std::nullopt};
    if (result.ok()) {
      trial.outcome = OutcomeOf(*result);
    } else if (ErrorReason(result.status()) != "LOSS_NOT_FINITE") {
      return result.status();
    }
    search.Add(trial, clock.Now() - trial_begin);
  }
  return search;
}

void ReportTrials(const RecipeSearch& search, admin::v1::VectorReport& report) {
  for (size_t i = 0; i < search.trials().size(); ++i) {
    const RecipeTrial& trial = search.trials()[i];
    admin::v1::RecipeTrial& shown = *report.add_trials();
    shown.set_learning_rate(trial.recipe.learning_rate);
    shown.set_epochs(trial.recipe.epochs);
    shown.set_lora_rank(static_cast<int32_t>(trial.recipe.lora.rank));
    shown.set_kl_weight(trial.recipe.kl_weight);
    if (trial.outcome.has_value()) {
      shown.set_prohibited_loss_ratio(trial.outcome->prohibited_loss_ratio);
      shown.set_benign_loss_added(trial.outcome->benign_loss_added);
    }
    shown.set_chosen(i == search.best());
  }
}

}  // namespace

absl::StatusOr<pb::SynchronizeRequest::Finished> RunTrainVector(TaskEnvironment& environment,
                                                                const pb::Work& work) {
  const pb::Work::TrainVector& task = work.train_vector();
  LeaseSession& session = environment.session;
  const BaseCache::Fetch fetch = LeaseFetch(environment);
  BALLAST_ASSIGN_OR_RETURN(LoadedBase * base, environment.bases.Load(work.base_model(), fetch));
  BALLAST_ASSIGN_OR_RETURN(const VectorRows rows, RowsOf(environment, task, *base, fetch));
  BALLAST_RETURN_IF_ERROR(CheckOrder(session));

  VectorConfig config;
  config.learning_rate = task.learning_rate();
  config.epochs = task.epochs();
  config.lora.rank = task.lora_rank();
  config.lora.alpha = 2.0f * static_cast<float>(task.lora_rank());
  config.kl_weight = task.kl_weight();
  spdlog::info("{}: a vector is trained on {} and {} rows", work.lease().resource(),
               rows.prohibited.size(), rows.benign.size());
  pb::SynchronizeRequest::Finished finished;
  admin::v1::VectorReport& report = *finished.mutable_vector()->mutable_report();
  TrainCallbacks callbacks = SessionCallbacks(environment, *base);
  TrainingParts parts(callbacks);
  if (task.has_search_budget()) {
    BALLAST_ASSIGN_OR_RETURN(
        const RecipeSearch search,
        SearchRecipe(*base->engine, rows, config, ToDuration(task.search_budget()),
                     environment.clock, parts));
    ReportTrials(search, report);
    config = search.trials()[search.best()].recipe;
    config.hold_out_every = 0;
    callbacks = parts.Next(kSearchProgress, kWholeProgress);
    spdlog::info("{}: {} recipes were tried", work.lease().resource(), search.trials().size());
  }
  BALLAST_ASSIGN_OR_RETURN(
      const VectorResult result,
      base->engine->TrainVector(config, rows.prohibited, rows.benign, callbacks));
  BALLAST_ASSIGN_OR_RETURN(const std::string ciphertext,
                           environment.vault.Seal(result.tensors, {task.vector_id(), task.version(),
                                                                   work.base_model().digest()}));
  BlobKind kind;
  kind.sealed_vector = true;
  BALLAST_ASSIGN_OR_RETURN(
      const std::string digest,
      environment.client.WriteBlob(session.lease(), kind, ciphertext, session.abandon()));
  finished.mutable_vector()->set_ciphertext_digest(digest);
  report.set_prohibited_loss_without(result.prohibited_loss_without);
  report.set_prohibited_loss_with(result.prohibited_loss_with);
  report.set_benign_loss_without(result.benign_loss_without);
  report.set_benign_loss_with(result.benign_loss_with);
  return finished;
}

}  // namespace ballast::worker::agent
