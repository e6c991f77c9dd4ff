// SPDX-License-Identifier: Apache-2.0
#include "server/core/admission.h"

#include <functional>
#include <limits>
#include <string>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

BaseModelRecord Base() {
  BaseModelRecord base;
  base.set_id("base");
  base.mutable_model()->set_name("baseModels/base");
  base.mutable_model()->set_tokenizer_digest("tok");
  base.mutable_model()->set_template_digest("tpl");
  base.mutable_model()->set_context_tokens(512);
  *base.mutable_model()->mutable_limits() = DefaultLimits();
  return base;
}

DatasetRecord Data(const std::string& id, int64_t rows) {
  DatasetRecord record;
  record.set_id(id);
  record.mutable_dataset()->set_name("tenants/a/datasets/" + id);
  record.mutable_dataset()->set_state(v1::Dataset::READY);
  record.mutable_dataset()->set_tokenizer_digest("tok");
  record.mutable_dataset()->set_template_digest("tpl");
  record.mutable_dataset()->mutable_report()->set_rows_accepted(rows);
  record.mutable_dataset()->mutable_report()->set_longest_row_tokens(512);
  record.mutable_dataset()->mutable_report()->set_total_tokens(rows * 100);
  record.mutable_dataset()->mutable_report()->set_supervised_tokens(rows * 40);
  return record;
}

v1::Hyperparameters Defaults() {
  v1::Hyperparameters hyper;
  CompleteHyperparameters(DefaultLimits(), 7, &hyper);
  return hyper;
}

TEST(AdmissionTest, DefaultsAreAdmitted) {
  const v1::Hyperparameters hyper = Defaults();
  EXPECT_EQ(hyper.learning_rate(), 2e-4);
  EXPECT_EQ(hyper.epochs(), 3);
  EXPECT_EQ(hyper.batch_rows(), 16);
  EXPECT_EQ(hyper.lora_rank(), 16);
  EXPECT_EQ(hyper.lora_alpha(), 32);
  EXPECT_EQ(hyper.warmup_ratio(), 0.03);
  EXPECT_EQ(hyper.schedule(), v1::Hyperparameters::COSINE);
  EXPECT_EQ(hyper.seed(), 7);
  EXPECT_OK(Admit(hyper, Base(), Data("d", 100), nullptr));
}

TEST(AdmissionTest, DefaultsKeepToNarrowLimits) {
  v1::TrainingLimits limits = DefaultLimits();
  limits.set_max_epochs(1);
  limits.set_max_learning_rate(1e-5);
  limits.set_max_lora_rank(4);
  limits.set_min_batch_rows(32);
  v1::Hyperparameters hyper;
  CompleteHyperparameters(limits, 7, &hyper);
  BaseModelRecord base = Base();
  *base.mutable_model()->mutable_limits() = limits;
  EXPECT_OK(Admit(hyper, base, Data("d", 1000), nullptr));
}

TEST(AdmissionTest, ExplicitZerosThatMeanSomethingAreKept) {
  v1::Hyperparameters hyper;
  hyper.set_warmup_ratio(0);
  hyper.set_learning_rate(0);
  CompleteHyperparameters(DefaultLimits(), 7, &hyper);
  EXPECT_EQ(hyper.warmup_ratio(), 0);
  EXPECT_EQ(hyper.learning_rate(), 0);
  EXPECT_THAT(Admit(hyper, Base(), Data("d", 100), nullptr),
              StatusIs(kInvalid, "LEARNING_RATE_OUT_OF_RANGE"));
}

struct FieldCase {
  const char* name;
  std::function<void(v1::Hyperparameters&)> change;
  const char* reason;
};

class AdmissionFieldTest : public ::testing::TestWithParam<FieldCase> {};

TEST_P(AdmissionFieldTest, IsRefusedWithFieldAndReason) {
  v1::Hyperparameters hyper = Defaults();
  GetParam().change(hyper);
  const absl::Status status = Admit(hyper, Base(), Data("d", 100), nullptr);
  EXPECT_THAT(status, StatusIs(kInvalid, GetParam().reason));
  google::rpc::BadRequest bad;
  ASSERT_TRUE(bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value())));
  EXPECT_THAT(bad.field_violations(0).field(), HasSubstr("fine_tuning_job.hyperparameters."));
}

INSTANTIATE_TEST_SUITE_P(
    All, AdmissionFieldTest,
    ::testing::Values(
        FieldCase{"HugeRate", [](auto& h) { h.set_learning_rate(1e9); },
                  "LEARNING_RATE_OUT_OF_RANGE"},
        FieldCase{"NegativeRate", [](auto& h) { h.set_learning_rate(-1); },
                  "LEARNING_RATE_OUT_OF_RANGE"},
        FieldCase{"NanRate",
                  [](auto& h) { h.set_learning_rate(std::numeric_limits<double>::quiet_NaN()); },
                  "LEARNING_RATE_OUT_OF_RANGE"},
        FieldCase{"Epochs", [](auto& h) { h.set_epochs(51); }, "EPOCHS_OUT_OF_RANGE"},
        FieldCase{"NegativeEpochs", [](auto& h) { h.set_epochs(-1); }, "EPOCHS_OUT_OF_RANGE"},
        FieldCase{"SmallBatch", [](auto& h) { h.set_batch_rows(3); }, "BATCH_ROWS_OUT_OF_RANGE"},
        FieldCase{"LargeBatch", [](auto& h) { h.set_batch_rows(257); }, "BATCH_ROWS_OUT_OF_RANGE"},
        FieldCase{"Rank", [](auto& h) { h.set_lora_rank(65); }, "LORA_RANK_OUT_OF_RANGE"},
        FieldCase{"SmallAlpha", [](auto& h) { h.set_lora_alpha(3.9); }, "LORA_ALPHA_OUT_OF_RANGE"},
        FieldCase{"TinyRate", [](auto& h) { h.set_learning_rate(9e-7); },
                  "LEARNING_RATE_OUT_OF_RANGE"},
        FieldCase{"Alpha", [](auto& h) { h.set_lora_alpha(64.1); }, "LORA_ALPHA_OUT_OF_RANGE"},
        FieldCase{"NegativeAlpha", [](auto& h) { h.set_lora_alpha(-1); },
                  "LORA_ALPHA_OUT_OF_RANGE"},
        FieldCase{"Warmup", [](auto& h) { h.set_warmup_ratio(1); }, "WARMUP_RATIO_OUT_OF_RANGE"},
        FieldCase{"Schedule",
                  [](auto& h) { h.set_schedule(static_cast<v1::Hyperparameters::Schedule>(9)); },
                  "SCHEDULE_UNKNOWN"}),
    [](const auto& info) { return info.param.name; });

struct EnvelopeCase {
  const char* name;
  std::function<void(v1::Hyperparameters&, DatasetRecord&, v1::Envelope&)> change;
  const char* field;
  const char* says;
};

class AdmissionEnvelopeTest : public ::testing::TestWithParam<EnvelopeCase> {};

TEST_P(AdmissionEnvelopeTest, IsRefusedWithFieldLimitAndReason) {
  BaseModelRecord base = Base();
  v1::Envelope& envelope = *base.mutable_model()->mutable_limits()->mutable_envelope();
  envelope = envelope::ConservativeEnvelope();
  v1::Hyperparameters hyper = Defaults();
  DatasetRecord data = Data("d", 100);
  ASSERT_OK(Admit(hyper, base, data, nullptr));
  GetParam().change(hyper, data, envelope);
  const absl::Status status = Admit(hyper, base, data, nullptr);
  EXPECT_THAT(status, StatusIs(kInvalid, "OUTSIDE_ENVELOPE"));
  google::rpc::BadRequest bad;
  ASSERT_TRUE(bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value())));
  EXPECT_EQ(bad.field_violations(0).field(), std::string("fine_tuning_job.") + GetParam().field);
  EXPECT_THAT(bad.field_violations(0).description(), HasSubstr(GetParam().says));
  // Without an envelope the same job is inside the limits.
  base.mutable_model()->mutable_limits()->clear_envelope();
  EXPECT_OK(Admit(hyper, base, data, nullptr));
}

INSTANTIATE_TEST_SUITE_P(
    All, AdmissionEnvelopeTest,
    ::testing::Values(
        EnvelopeCase{"Rate", [](auto& h, auto&, auto&) { h.set_learning_rate(1.1e-3); },
                     "hyperparameters.learning_rate", "is 0.0022"},
        EnvelopeCase{"RateByAlpha",
                     [](auto& h, auto&, auto&) {
                       h.set_learning_rate(6e-4);
                       h.set_lora_alpha(64);
                     },
                     "hyperparameters.learning_rate", "at most 0.002"},
        EnvelopeCase{"LowRate", [](auto&, auto&, auto& e) { e.set_min_scaled_learning_rate(1e-3); },
                     "hyperparameters.learning_rate", "at least 0.001"},
        EnvelopeCase{"Steps", [](auto&, auto&, auto& e) { e.set_max_steps(20); },
                     "hyperparameters.epochs", "is 21"},
        EnvelopeCase{"RowPasses", [](auto&, auto&, auto& e) { e.set_max_row_passes(299); },
                     "hyperparameters.epochs", "is 300"},
        EnvelopeCase{"Epochs", [](auto& h, auto&, auto&) { h.set_epochs(11); }, "training_dataset",
                     "is 11"},
        EnvelopeCase{"NearDuplicates",
                     [](auto&, DatasetRecord& d, auto&) {
                       d.mutable_dataset()->mutable_report()->set_most_repeated_row(4);
                     },
                     "training_dataset", "is 12"},
        EnvelopeCase{"Rank",
                     [](auto& h, auto&, auto&) {
                       h.set_lora_rank(33);
                       h.set_lora_alpha(66);
                     },
                     "hyperparameters.lora_rank", "at most 32"},
        EnvelopeCase{"Scale", [](auto& h, auto&, auto&) { h.set_lora_alpha(8); },
                     "hyperparameters.lora_alpha", "at least 1"},
        EnvelopeCase{"Batch", [](auto&, auto&, auto& e) { e.set_max_batch_rows(8); },
                     "hyperparameters.batch_rows", "at most 8"},
        EnvelopeCase{"Warmup", [](auto& h, auto&, auto&) { h.set_warmup_ratio(0.5); },
                     "hyperparameters.warmup_ratio", "at most 0.1"},
        EnvelopeCase{"Schedule",
                     [](auto&, auto&, auto& e) {
                       e.mutable_schedules()->Set(0, v1::Hyperparameters::LINEAR);
                     },
                     "hyperparameters.schedule", "schedule is COSINE"},
        EnvelopeCase{"RowWeight",
                     [](auto&, auto&, auto& e) {
                       e.set_max_row_weight(0.5);
                       e.set_min_row_weight(0.1);
                     },
                     "base_model", "ask the operator"},
        EnvelopeCase{"Modules", [](auto&, auto&, auto& e) { e.clear_modules(); }, "base_model",
                     "adapters sit on"},
        EnvelopeCase{"Clipping", [](auto&, auto&, auto& e) { e.set_gradient_clip_norm(2); },
                     "base_model", "clipped at 1"}),
    [](const auto& info) { return info.param.name; });

TEST(AdmissionTest, DefaultsKeepToTheEnvelope) {
  BaseModelRecord base = Base();
  v1::Envelope& envelope = *base.mutable_model()->mutable_limits()->mutable_envelope();
  envelope = envelope::ConservativeEnvelope();
  envelope.set_max_scaled_learning_rate(1e-4);
  envelope.set_max_passes_per_row(2);
  envelope.set_min_lora_rank(20);
  envelope.set_max_batch_rows(8);
  envelope.set_min_warmup_ratio(0.05);
  v1::Hyperparameters hyper;
  CompleteHyperparameters(base.model().limits(), 7, &hyper);
  EXPECT_OK(Admit(hyper, base, Data("d", 100), nullptr));
  EXPECT_EQ(hyper.lora_rank(), 20);
  EXPECT_EQ(hyper.batch_rows(), 8);
  EXPECT_EQ(hyper.epochs(), 2);
  EXPECT_EQ(hyper.warmup_ratio(), 0.05);
  EXPECT_DOUBLE_EQ(hyper.learning_rate(), 5e-5);
  // With an alpha of the customer's own, the rate gives way.
  hyper.Clear();
  hyper.set_lora_alpha(80);
  CompleteHyperparameters(base.model().limits(), 7, &hyper);
  EXPECT_DOUBLE_EQ(hyper.learning_rate(), 2.5e-5);
}

TEST(AdmissionTest, ReportsAllFieldsAtOnce) {
  v1::Hyperparameters hyper = Defaults();
  hyper.set_learning_rate(1);
  hyper.set_epochs(1000);
  const absl::Status status = Admit(hyper, Base(), Data("d", 100), nullptr);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value())));
  EXPECT_EQ(bad.field_violations_size(), 2);
}

TEST(AdmissionTest, HoldsMinimaOfRowsAndSteps) {
  EXPECT_THAT(Admit(Defaults(), Base(), Data("d", 9), nullptr), StatusIs(kInvalid, "TOO_FEW_ROWS"));
  EXPECT_THAT(Admit(Defaults(), Base(), Data("d", 1'000'001), nullptr),
              StatusIs(kInvalid, "TOO_MANY_ROWS"));
  v1::Hyperparameters hyper = Defaults();
  hyper.set_epochs(1);
  EXPECT_THAT(Admit(hyper, Base(), Data("d", 64), nullptr), StatusIs(kInvalid, "TOO_FEW_STEPS"));
  EXPECT_OK(Admit(hyper, Base(), Data("d", 65), nullptr));
  hyper.set_epochs(50);
  hyper.set_batch_rows(4);
  EXPECT_THAT(Admit(hyper, Base(), Data("d", 900'000), nullptr),
              StatusIs(kInvalid, "TOO_MANY_STEPS"));
}

TEST(AdmissionTest, ChecksDataSets) {
  DatasetRecord data = Data("d", 100);
  data.mutable_dataset()->set_state(v1::Dataset::VALIDATING);
  const absl::Status waiting = Admit(Defaults(), Base(), data, nullptr);
  EXPECT_THAT(waiting, StatusIs(kPrecondition, "DATASET_NOT_READY"));
  EXPECT_TRUE(waiting.GetPayload(kRetryInfoUrl).has_value());
  data.mutable_dataset()->set_state(v1::Dataset::INVALID);
  EXPECT_THAT(Admit(Defaults(), Base(), data, nullptr), StatusIs(kPrecondition, "DATASET_INVALID"));
  data = Data("d", 100);
  data.mutable_dataset()->set_template_digest("other");
  EXPECT_THAT(Admit(Defaults(), Base(), data, nullptr),
              StatusIs(kPrecondition, "DATASET_BASE_MISMATCH"));
  data = Data("d", 100);
  DatasetRecord validation = Data("v", 1);
  EXPECT_OK(Admit(Defaults(), Base(), data, &validation));
  validation.mutable_dataset()->set_tokenizer_digest("other");
  EXPECT_THAT(Admit(Defaults(), Base(), data, &validation),
              StatusIs(kPrecondition, "DATASET_BASE_MISMATCH"));
  EXPECT_THAT(Admit(Defaults(), Base(), data, &data),
              StatusIs(kInvalid, "VALIDATION_DATASET_IS_TRAINING"));
}

TEST(AdmissionTest, RowsCountedForALongerContextAreRefused) {
  // The same digests, but a shorter context: the worker would leave rows out, and few would be
  // left.
  BaseModelRecord shorter = Base();
  shorter.mutable_model()->set_context_tokens(511);
  DatasetRecord validation = Data("v", 1);
  const auto refused_for = [&](const DatasetRecord& training, const DatasetRecord* validation) {
    const absl::Status status = Admit(Defaults(), shorter, training, validation);
    EXPECT_THAT(status, StatusIs(kInvalid, "DATASET_ROW_TOO_LONG"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("upload it again"));
    google::rpc::BadRequest bad;
    EXPECT_TRUE(bad.ParseFromString(std::string(status.GetPayload(kBadRequestUrl).value())));
    return bad.field_violations(0).field();
  };
  EXPECT_EQ(refused_for(Data("d", 100), nullptr), "fine_tuning_job.training_dataset");
  DatasetRecord fits = Data("d", 100);
  fits.mutable_dataset()->mutable_report()->set_longest_row_tokens(511);
  EXPECT_EQ(refused_for(fits, &validation), "fine_tuning_job.validation_dataset");
  validation.mutable_dataset()->mutable_report()->set_longest_row_tokens(511);
  EXPECT_OK(Admit(Defaults(), shorter, fits, &validation));
}

TEST(AdmissionTest, OperatorsNarrowLimitsAndDoNotWidenThem) {
  v1::TrainingLimits asked;
  asked.set_min_rows(100);
  asked.set_max_lora_rank(8);
  ASSERT_OK_AND_ASSIGN(const v1::TrainingLimits limits, CompleteLimits(asked));
  EXPECT_EQ(limits.min_rows(), 100);
  EXPECT_EQ(limits.max_lora_rank(), 8);
  EXPECT_EQ(limits.min_steps(), DefaultLimits().min_steps());
  for (const auto& widen : std::vector<std::function<void(v1::TrainingLimits&)>>{
           [](auto& l) { l.set_min_rows(9); }, [](auto& l) { l.set_min_steps(1); },
           [](auto& l) { l.set_min_batch_rows(1); }, [](auto& l) { l.set_max_rows(2'000'000); },
           [](auto& l) { l.set_max_epochs(51); }, [](auto& l) { l.set_max_learning_rate(0.1); },
           [](auto& l) { l.set_max_learning_rate(-1); }, [](auto& l) { l.set_max_lora_rank(65); },
           [](auto& l) { l.set_max_lora_rank(-1); }, [](auto& l) { l.mutable_envelope(); }}) {
    v1::TrainingLimits bad;
    widen(bad);
    EXPECT_THAT(CompleteLimits(bad), StatusIs(kInvalid, "LIMITS_OUT_OF_RANGE"))
        << bad.DebugString();
  }
}

TEST(AdmissionTest, EstimatesFromTheReport) {
  BaseModelRecord base = Base();
  v1::Estimate estimate = EstimateJob(Defaults(), base, Data("d", 100));
  EXPECT_EQ(estimate.rows(), 100);
  EXPECT_EQ(estimate.total_tokens(), 30'000);
  EXPECT_EQ(estimate.supervised_tokens(), 12'000);
  EXPECT_EQ(estimate.steps(), 21);
  EXPECT_DOUBLE_EQ(estimate.scaled_learning_rate(), 4e-4);
  EXPECT_EQ(estimate.row_passes(), 300);
  EXPECT_EQ(estimate.passes_per_row(), 3);
  EXPECT_FALSE(estimate.has_running_time());
  base.set_tokens_per_second(61);
  estimate = EstimateJob(Defaults(), base, Data("d", 100));
  EXPECT_EQ(estimate.running_time().seconds(), 500);  // 491.8, to two digits
  // Data sets of sizes near a rounding step tell no third digit of the speed.
  for (int rows = 100; rows < 200; ++rows) {
    base.set_tokens_per_second(60.0);
    const auto slower = EstimateJob(Defaults(), base, Data("d", rows)).running_time().seconds();
    base.set_tokens_per_second(60.9);
    EXPECT_EQ(EstimateJob(Defaults(), base, Data("d", rows)).running_time().seconds(), slower);
  }
}

TEST(AdmissionTest, BoundsNamesAndLabels) {
  v1::FineTuningJob job;
  job.set_display_name(std::string(101, 'x'));
  EXPECT_THAT(CheckJobShape(job), StatusIs(kInvalid, "DISPLAY_NAME_TOO_LONG"));
  job.set_display_name(std::string(100, 'x'));
  EXPECT_OK(CheckJobShape(job));
  for (int i = 0; i < 16; ++i) (*job.mutable_labels())["k" + std::to_string(i)] = "v";
  EXPECT_OK(CheckJobShape(job));
  (*job.mutable_labels())["more"] = "v";
  EXPECT_THAT(CheckJobShape(job), StatusIs(kInvalid, "LABELS_INVALID"));
  job.clear_labels();
  (*job.mutable_labels())["k"] = std::string(513, 'v');
  EXPECT_THAT(CheckJobShape(job), StatusIs(kInvalid, "LABELS_INVALID"));
}

}  // namespace
}  // namespace ballast::server
