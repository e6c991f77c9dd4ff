// SPDX-License-Identifier: Apache-2.0
// Engine::TrainVector on the tiny model.
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/train/inspect.h"
#include "worker/train/testing/tiny.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using ::ballast::testing::StatusIs;
using testing::AsAdapter;
using testing::CountingRows;
using testing::LoadTiny;
using testing::ThoroughVectorConfig;
using testing::TinyRow;

class TrainVectorTest : public ::testing::Test {
 protected:
  // Mean KL(base || base + vector) over the tokens of `rows`, from the logits.
  double Divergence(const SecretBuffer& vector, const LoraConfig& lora,
                    const std::vector<TokenRow>& rows) {
    double sum = 0;
    int64_t count = 0;
    const Adapter adapter = AsAdapter(vector);
    for (const TokenRow& row : rows) {
      const std::vector<float> base = engine_->Logits(row.tokens, {}, lora).value();
      const std::vector<float> changed = engine_->Logits(row.tokens, adapter, lora).value();
      for (size_t begin = 0; begin < base.size(); begin += testing::kTinyVocabulary, ++count) {
        double base_sum = 0, changed_sum = 0;
        for (size_t i = begin; i < begin + testing::kTinyVocabulary; ++i) {
          base_sum += std::exp(base[i]);
          changed_sum += std::exp(changed[i]);
        }
        for (size_t i = begin; i < begin + testing::kTinyVocabulary; ++i) {
          const double log_p = base[i] - std::log(base_sum),
                       log_q = changed[i] - std::log(changed_sum);
          sum += std::exp(log_p) * (log_p - log_q);
        }
      }
    }
    return sum / static_cast<double>(count);
  }

  std::unique_ptr<Engine> engine_ = LoadTiny(Precision::kBfloat16);
};

TEST_F(TrainVectorTest, VectorKeepsTheBenignDistribution) {
  const std::vector<TokenRow> prohibited = CountingRows(16, 20);
  std::vector<TokenRow> benign;
  for (int i = 0; i < 24; ++i) benign.push_back(TinyRow(200 + i, 30, 5));
  VectorConfig config = ThoroughVectorConfig();
  int64_t last_step = 0;
  TrainCallbacks callbacks;
  callbacks.progress = [&](const Progress& p) { last_step = p.step; };
  ASSERT_OK_AND_ASSIGN(const VectorResult with_kl,
                       engine_->TrainVector(config, prohibited, benign, callbacks));
  EXPECT_EQ(last_step, 80);
  config.kl_weight = 0;
  ASSERT_OK_AND_ASSIGN(const VectorResult without_kl,
                       engine_->TrainVector(config, prohibited, benign, {}));
  EXPECT_LT(with_kl.prohibited_loss_with, 0.5 * with_kl.prohibited_loss_without);
  EXPECT_EQ(with_kl.benign_loss_without, without_kl.benign_loss_without);
  EXPECT_LT(Divergence(with_kl.tensors, config.lora, benign),
            0.6 * Divergence(without_kl.tensors, config.lora, benign));

  // What was measured with the adapter beside the base is what the merged base gives.
  Adapter zero = InitialAdapter(*engine_, {.rank = 2, .alpha = 2.0f}, 1).value();
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients merged,
      ComputeGradients(*engine_, prohibited, zero, {.rank = 2, .alpha = 2.0f}, &with_kl.tensors));
  EXPECT_NEAR(merged.loss, with_kl.prohibited_loss_with, 0.05 * with_kl.prohibited_loss_with);
  // S5: no seed, so no two vectors are alike.
  ASSERT_OK_AND_ASSIGN(const VectorResult again,
                       engine_->TrainVector(config, prohibited, benign, {}));
  EXPECT_NE(again.tensors.view(), without_kl.tensors.view());
}

TEST_F(TrainVectorTest, AVectorIsJudgedByRowsThatItsTrainingLeftOut) {
  // Rows 5 and 10 of both kinds are unlike the others: a vector that saw them would explain them.
  std::vector<TokenRow> prohibited = CountingRows(10, 20), benign = CountingRows(10, 20, 300);
  for (const int row : {4, 9}) {
    prohibited[row] = TinyRow(500 + row, 30, 5);
    benign[row] = TinyRow(700 + row, 30, 5);
  }
  const std::vector<TokenRow> left_out = {prohibited[4], prohibited[9]};
  VectorConfig config = ThoroughVectorConfig();
  ASSERT_OK_AND_ASSIGN(const VectorResult whole,
                       engine_->TrainVector(config, prohibited, benign, {}));
  config.hold_out_every = 5;
  ASSERT_OK_AND_ASSIGN(const VectorResult judged,
                       engine_->TrainVector(config, prohibited, benign, {}));
  EXPECT_LT(whole.prohibited_loss_with, 0.5 * whole.prohibited_loss_without);
  EXPECT_GT(judged.prohibited_loss_with, 0.9 * judged.prohibited_loss_without);
  Adapter zero = InitialAdapter(*engine_, {.rank = 2, .alpha = 2.0f}, 1).value();
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients alone,
      ComputeGradients(*engine_, left_out, zero, {.rank = 2, .alpha = 2.0f}, nullptr));
  EXPECT_NEAR(judged.prohibited_loss_without, alone.loss, 1e-4 * alone.loss);
  config.hold_out_every = 1;
  EXPECT_EQ(ErrorReason(engine_->TrainVector(config, prohibited, benign, {}).status()),
            "VECTOR_CONFIG_INVALID");
}

TEST_F(TrainVectorTest, AnInnerAttackerIsLeftOutOfTheVector) {
  const std::vector<TokenRow> prohibited = CountingRows(16, 20), benign = CountingRows(8, 20, 300);
  VectorConfig config = ThoroughVectorConfig();
  config.epochs = 10;
  ASSERT_OK_AND_ASSIGN(const VectorResult alone,
                       engine_->TrainVector(config, prohibited, benign, {}));
  config.inner_steps = 1;
  ASSERT_OK_AND_ASSIGN(const VectorResult attacked,
                       engine_->TrainVector(config, prohibited, benign, {}));
  EXPECT_EQ(attacked.tensors.size(), alone.tensors.size());
  EXPECT_LT(attacked.prohibited_loss_with, 0.7 * attacked.prohibited_loss_without);
  Adapter zero = InitialAdapter(*engine_, {.rank = 2, .alpha = 2.0f}, 1).value();
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients merged,
      ComputeGradients(*engine_, prohibited, zero, {.rank = 2, .alpha = 2.0f}, &attacked.tensors));
  EXPECT_NEAR(merged.loss, attacked.prohibited_loss_with, 0.05 * attacked.prohibited_loss_with);

  // Where the attacker explains the rows itself, little is left for the vector to learn.
  config.inner_steps = 8;
  config.inner_learning_rate = 2e-2;
  ASSERT_OK_AND_ASSIGN(const VectorResult outdone,
                       engine_->TrainVector(config, prohibited, benign, {}));
  EXPECT_GT(outdone.prohibited_loss_with, 1.2 * attacked.prohibited_loss_with);

  config.inner_steps = -1;
  EXPECT_EQ(ErrorReason(engine_->TrainVector(config, prohibited, benign, {}).status()),
            "VECTOR_CONFIG_INVALID");
  config.inner_steps = 1;
  config.inner_learning_rate = 0;
  EXPECT_EQ(ErrorReason(engine_->TrainVector(config, prohibited, benign, {}).status()),
            "VECTOR_CONFIG_INVALID");
}

TEST_F(TrainVectorTest, VectorTrainingStopsByOrder) {
  TrainCallbacks callbacks;
  int yields = 0;
  callbacks.yield = [&] {
    return ++yields > 5 ? TrainCallbacks::Order::kStopAndCheckpoint
                        : TrainCallbacks::Order::kContinue;
  };
  callbacks.checkpoint = [](int64_t, const std::string&) {
    FAIL() << "a vector has no checkpoints";
  };
  EXPECT_THAT(engine_->TrainVector({}, CountingRows(16, 20), CountingRows(16, 20, 300), callbacks),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace ballast::worker
