// SPDX-License-Identifier: Apache-2.0
#include "common/envelope/envelope.h"

#include <functional>
#include <limits>
#include <string>

#include "common/artifact/adapter_folder.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace ballast::envelope {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using v1::Envelope;
using v1::Hyperparameters;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

Hyperparameters Defaults() {
  Hyperparameters hyper;
  hyper.set_learning_rate(2e-4);
  hyper.set_epochs(3);
  hyper.set_batch_rows(16);
  hyper.set_lora_rank(16);
  hyper.set_lora_alpha(32);
  hyper.set_warmup_ratio(0.03);
  hyper.set_schedule(Hyperparameters::COSINE);
  return hyper;
}

google::rpc::BadRequest Details(const absl::Status& status) {
  google::rpc::BadRequest bad;
  EXPECT_TRUE(
      bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value_or(absl::Cord()))));
  return bad;
}

TEST(EnvelopeTest, AJobsPlace) {
  const Place place = PlaceOf(Defaults(), {100, 2});
  EXPECT_DOUBLE_EQ(place.scaled_learning_rate, 4e-4);
  EXPECT_DOUBLE_EQ(place.lora_scale, 2);
  EXPECT_EQ(place.steps, 21);
  EXPECT_EQ(place.row_passes, 300);
  EXPECT_EQ(place.passes_per_row, 6);
  EXPECT_EQ(place.lora_rank, 16);
  EXPECT_EQ(place.batch_rows, 16);
  EXPECT_EQ(place.warmup_ratio, 0.03);
  EXPECT_EQ(PlaceOf(Defaults(), {100, 0}).passes_per_row, 3);
}

TEST(EnvelopeTest, TheConservativeOneIsCompleteAndTakesTheDefaults) {
  EXPECT_OK(CheckEnvelope(ConservativeEnvelope(), ""));
  EXPECT_OK(CheckInside(PlaceOf(Defaults(), {10'000, 1}), ConservativeEnvelope(), ""));
}

TEST(EnvelopeTest, LimitsAreInclusiveWhateverTheRounding) {
  Envelope envelope = ConservativeEnvelope();
  Hyperparameters hyper = Defaults();
  for (const int rank : {3, 7, 11, 16, 24}) {
    for (const double rate : {1e-4, 3e-4, 7e-5}) {
      hyper.set_lora_rank(rank);
      hyper.set_lora_alpha(1.7 * rank);
      hyper.set_learning_rate(rate);
      envelope.set_max_scaled_learning_rate(rate * 1.7);
      envelope.set_min_scaled_learning_rate(rate * 1.7);
      EXPECT_OK(CheckInside(PlaceOf(hyper, {100, 1}), envelope, "")) << rank << " " << rate;
    }
  }
}

struct Outside {
  const char* name;
  std::function<void(Place&, Envelope&)> change;
  const char* field;
  const char* limit;
  const char* says;
};

class OutsideTest : public ::testing::TestWithParam<Outside> {};

TEST_P(OutsideTest, NamesFieldValueLimitAndWhatToDo) {
  Place place = PlaceOf(Defaults(), {1000, 1});
  Envelope envelope = ConservativeEnvelope();
  envelope.set_min_scaled_learning_rate(1e-5);
  envelope.set_min_lora_rank(4);
  envelope.set_min_warmup_ratio(0.01);
  ASSERT_OK(CheckInside(place, envelope, ""));
  GetParam().change(place, envelope);
  const auto broken = LimitsBroken(place, envelope);
  ASSERT_EQ(broken.size(), 1u);
  EXPECT_EQ(broken[0].limit, GetParam().limit);
  const absl::Status status = CheckInside(place, envelope, "job.");
  EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
  EXPECT_EQ(Details(status).field_violations(0).field(), std::string("job.") + GetParam().field);
  EXPECT_THAT(Details(status).field_violations(0).description(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, OutsideTest,
    ::testing::Values(
        Outside{"HighRate", [](Place& p, Envelope&) { p.scaled_learning_rate = 2.1e-3; },
                "hyperparameters.learning_rate", "max_scaled_learning_rate",
                "is 0.0021; the protection of this base model was measured with at most 0.002: "
                "lower learning_rate"},
        Outside{"LowRate", [](Place& p, Envelope&) { p.scaled_learning_rate = 9e-6; },
                "hyperparameters.learning_rate", "min_scaled_learning_rate", "at least 1e-05"},
        Outside{"NanRate",
                [](Place& p, Envelope&) {
                  p.scaled_learning_rate = std::numeric_limits<double>::quiet_NaN();
                },
                "hyperparameters.learning_rate", "min_scaled_learning_rate", "is nan"},
        Outside{"SmallScale", [](Place& p, Envelope&) { p.lora_scale = 0.5; },
                "hyperparameters.lora_alpha", "min_lora_scale", "at least 1: raise lora_alpha"},
        Outside{"LargeScale", [](Place& p, Envelope&) { p.lora_scale = 4.5; },
                "hyperparameters.lora_alpha", "max_lora_scale", "at most 4: lower lora_alpha"},
        Outside{"Steps", [](Place& p, Envelope&) { p.steps = 3001; }, "hyperparameters.epochs",
                "max_steps", "at most 3000: lower epochs"},
        Outside{"RowPasses", [](Place& p, Envelope&) { p.row_passes = 50'001; },
                "hyperparameters.epochs", "max_row_passes", "fewer rows"},
        Outside{"PassesPerRow", [](Place& p, Envelope&) { p.passes_per_row = 11; },
                "training_dataset", "max_passes_per_row", "remove rows"},
        Outside{"HighRank", [](Place& p, Envelope&) { p.lora_rank = 33; },
                "hyperparameters.lora_rank", "max_lora_rank", "lower lora_rank"},
        Outside{"LowRank", [](Place& p, Envelope&) { p.lora_rank = 3; },
                "hyperparameters.lora_rank", "min_lora_rank", "raise lora_rank"},
        Outside{"LargeBatch", [](Place& p, Envelope&) { p.batch_rows = 65; },
                "hyperparameters.batch_rows", "max_batch_rows", "lower batch_rows"},
        Outside{"SmallBatch", [](Place& p, Envelope&) { p.batch_rows = 3; },
                "hyperparameters.batch_rows", "min_batch_rows", "raise batch_rows"},
        Outside{"LongWarmup", [](Place& p, Envelope&) { p.warmup_ratio = 0.2; },
                "hyperparameters.warmup_ratio", "max_warmup_ratio", "lower warmup_ratio"},
        Outside{"ShortWarmup", [](Place& p, Envelope&) { p.warmup_ratio = 0; },
                "hyperparameters.warmup_ratio", "min_warmup_ratio", "raise warmup_ratio"},
        Outside{"Schedule",
                [](Place& p, Envelope& e) {
                  e.clear_schedules();
                  e.add_schedules(Hyperparameters::LINEAR);
                },
                "hyperparameters.schedule", "schedules", "schedule is COSINE"},
        Outside{"RowWeight",
                [](Place&, Envelope& e) {
                  e.set_max_row_weight(0.9);
                  e.set_min_row_weight(0.5);
                },
                "base_model", "max_row_weight", "ask the operator"},
        Outside{"Modules", [](Place&, Envelope& e) { e.mutable_modules()->RemoveLast(); },
                "base_model", "modules", "v_proj"},
        Outside{"MoreModules", [](Place&, Envelope& e) { e.add_modules("lm_head"); }, "base_model",
                "modules", "lm_head"},
        Outside{"Clipping", [](Place&, Envelope& e) { e.set_gradient_clip_norm(0.5); },
                "base_model", "gradient_clip_norm", "clipped at 1"}),
    [](const auto& info) { return info.param.name; });

TEST(EnvelopeTest, NoJobIsAQuestionAboutAGradient) {
  const Place place = PlaceOf(Defaults(), {40, 1});
  EXPECT_OK(CheckMinima(place, 40));
  Place changed = place;
  EXPECT_THAT(CheckMinima(place, 9), StatusIs(kInvalid, "BELOW_MINIMUM"));
  changed.steps = 4;
  EXPECT_THAT(CheckMinima(changed, 40), StatusIs(kInvalid, "BELOW_MINIMUM"));
  changed = place;
  changed.batch_rows = 3;
  EXPECT_THAT(CheckMinima(changed, 40), StatusIs(kInvalid, "BELOW_MINIMUM"));
  Hyperparameters hyper = Defaults();
  hyper.set_learning_rate(9e-7);
  EXPECT_THAT(CheckMinima(PlaceOf(hyper, {40, 1}), 40), StatusIs(kInvalid, "BELOW_MINIMUM"));
  hyper = Defaults();
  hyper.set_lora_alpha(1e-60);
  EXPECT_THAT(CheckMinima(PlaceOf(hyper, {40, 1}), 40), StatusIs(kInvalid, "BELOW_MINIMUM"));
}

TEST(EnvelopeTest, TellsAllLimitsAtOnce) {
  Place place = PlaceOf(Defaults(), {1000, 1});
  place.lora_rank = 99;
  place.batch_rows = 99;
  const absl::Status status = CheckInside(place, ConservativeEnvelope(), "");
  EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
  EXPECT_EQ(Details(status).field_violations_size(), 2);
}

struct Incomplete {
  const char* name;
  std::function<void(Envelope&)> change;
  const char* field;
};

class IncompleteTest : public ::testing::TestWithParam<Incomplete> {};

TEST_P(IncompleteTest, IsNoEnvelope) {
  Envelope envelope = ConservativeEnvelope();
  GetParam().change(envelope);
  const absl::Status status = CheckEnvelope(envelope, "envelope.");
  EXPECT_THAT(status, StatusIs(kInvalid, "ENVELOPE_INVALID"));
  EXPECT_EQ(Details(status).field_violations(0).field(),
            std::string("envelope.") + GetParam().field);
}

INSTANTIATE_TEST_SUITE_P(
    All, IncompleteTest,
    ::testing::Values(
        Incomplete{"NoRate", [](Envelope& e) { e.clear_max_scaled_learning_rate(); },
                   "max_scaled_learning_rate"},
        Incomplete{"InfiniteRate",
                   [](Envelope& e) {
                     e.set_max_scaled_learning_rate(std::numeric_limits<double>::infinity());
                   },
                   "max_scaled_learning_rate"},
        Incomplete{"NegativeRate", [](Envelope& e) { e.set_min_scaled_learning_rate(-1); },
                   "min_scaled_learning_rate"},
        Incomplete{"NoScale", [](Envelope& e) { e.clear_min_lora_scale(); }, "min_lora_scale"},
        Incomplete{"ScalesCrossed", [](Envelope& e) { e.set_max_lora_scale(0.5); },
                   "max_lora_scale"},
        Incomplete{"NoSteps", [](Envelope& e) { e.clear_max_steps(); }, "max_steps"},
        Incomplete{"NoRowPasses", [](Envelope& e) { e.clear_max_row_passes(); }, "max_row_passes"},
        Incomplete{"NoPasses", [](Envelope& e) { e.clear_max_passes_per_row(); },
                   "max_passes_per_row"},
        Incomplete{"NoRank", [](Envelope& e) { e.clear_min_lora_rank(); }, "min_lora_rank"},
        Incomplete{"RanksCrossed", [](Envelope& e) { e.set_min_lora_rank(33); }, "max_lora_rank"},
        Incomplete{"NoBatch", [](Envelope& e) { e.clear_max_batch_rows(); }, "max_batch_rows"},
        Incomplete{"Warmup", [](Envelope& e) { e.set_max_warmup_ratio(1); }, "max_warmup_ratio"},
        Incomplete{"NoSchedule", [](Envelope& e) { e.clear_schedules(); }, "schedules"},
        Incomplete{"OtherClipping", [](Envelope& e) { e.set_gradient_clip_norm(2); },
                   "gradient_clip_norm"},
        Incomplete{"NoModules", [](Envelope& e) { e.clear_modules(); }, "modules"},
        Incomplete{"OtherWeights",
                   [](Envelope& e) {
                     e.set_min_row_weight(1.5);
                     e.set_max_row_weight(2);
                   },
                   "min_row_weight"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ballast::envelope
