// SPDX-License-Identifier: Apache-2.0
// Engine::Train and its failures on the tiny model.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "common/dataset/packing.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/train/inspect.h"
#include "worker/train/testing/tiny.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using ::ballast::testing::StatusIs;
using testing::AsVector;
using testing::CountingRows;
using ::testing::ElementsAre;
using ::testing::Field;
using testing::LoadTiny;
using testing::RandomAdapter;
using testing::ThoroughVectorConfig;
using testing::TinyRow;

constexpr LoraConfig kVectorLora{.rank = 4, .alpha = 8.0f};

class TrainTest : public ::testing::Test {
 protected:
  TrainRequest Request(int rows = 24) const {
    TrainRequest request;
    request.rows = CountingRows(rows, 20);
    request.config.lora = {.rank = 4, .alpha = 8.0f};
    request.config.learning_rate = 5e-3;
    request.config.epochs = 3;
    request.config.batch_rows = 8;
    request.config.max_tokens_per_micro_batch = 64;  // several micro-batches a step
    request.config.seed = 5;
    request.config.evaluation_points = 3;
    return request;
  }

  // The last checkpoint of the job; its config asks for one every 4 steps from now on.
  std::string LastCheckpoint(TrainRequest& request) {
    request.config.checkpoint_every_steps = 4;
    std::string bytes;
    TrainCallbacks callbacks;
    callbacks.checkpoint = [&](int64_t, std::string b) { bytes = std::move(b); };
    EXPECT_OK(engine_->Train(request, callbacks));
    return bytes;
  }

  SecretBuffer Vector(float scale = 0.1f) {
    return AsVector(RandomAdapter(*engine_, kVectorLora, 21, scale), kVectorLora);
  }

  static void ExpectSame(const Adapter& a, const Adapter& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      EXPECT_TRUE(a[i].values == b[i].values) << a[i].name;
    }
  }

  std::unique_ptr<Engine> engine_ = LoadTiny(Precision::kBfloat16);
};

TEST_F(TrainTest, SafetyRowsAreTrainedButInNoLossAndNoCount) {
  TrainRequest request = Request();
  ASSERT_OK_AND_ASSIGN(const TrainResult alone, engine_->Train(request, {}));
  request.safety_rows = CountingRows(8, 12);
  request.safety_rows_per_epoch = 8;
  ASSERT_OK_AND_ASSIGN(const TrainResult mixed, engine_->Train(request, {}));
  EXPECT_EQ(alone.progress.total_steps, 9);
  EXPECT_EQ(mixed.progress.total_steps, 12);
  EXPECT_EQ(mixed.progress.trained_tokens, alone.progress.trained_tokens);
  // Of the base, on the same sample of the customer's rows.
  EXPECT_EQ(mixed.evaluations[0].training_loss, alone.evaluations[0].training_loss);
  EXPECT_NE(mixed.evaluations.back().training_loss, alone.evaluations.back().training_loss);

  // As rows of the customer's they would have taught the same.
  TrainRequest appended = Request();
  for (const TokenRow& row : request.safety_rows) appended.rows.push_back(row);
  ASSERT_OK_AND_ASSIGN(const TrainResult same, engine_->Train(appended, {}));
  ASSERT_EQ(same.adapter.size(), mixed.adapter.size());
  for (size_t i = 0; i < same.adapter.size(); ++i) {
    EXPECT_EQ(same.adapter[i].values, mixed.adapter[i].values) << same.adapter[i].name;
  }
  EXPECT_GT(same.progress.trained_tokens, mixed.progress.trained_tokens);
}

TEST_F(TrainTest, EachEpochDrawsItsSafetyRows) {
  TrainRequest request = Request();
  request.safety_rows = CountingRows(6, 12, 5);
  request.safety_rows_per_epoch = 2;
  TrainRequest first = Request();
  for (const int64_t row : dataset::DrawSafetyRows(6, 2, request.config.seed, 0)) {
    first.safety_rows.push_back(request.safety_rows[row]);
  }
  first.safety_rows_per_epoch = 2;

  request.config.epochs = first.config.epochs = 1;
  ASSERT_OK_AND_ASSIGN(const TrainResult whole, engine_->Train(request, {}));
  ASSERT_OK_AND_ASSIGN(const TrainResult drawn, engine_->Train(first, {}));
  ExpectSame(whole.adapter, drawn.adapter);

  request.config.epochs = first.config.epochs = 2;
  ASSERT_OK_AND_ASSIGN(const TrainResult anew, engine_->Train(request, {}));
  ASSERT_OK_AND_ASSIGN(const TrainResult again, engine_->Train(first, {}));
  EXPECT_EQ(anew.progress.total_steps, again.progress.total_steps);
  EXPECT_NE(anew.adapter[0].values, again.adapter[0].values);
}

TEST_F(TrainTest, LearnsAndReportsVectorOffLosses) {
  TrainRequest request = Request();
  request.config.epochs = 20;
  request.validation_rows = CountingRows(4, 20, 7);
  std::vector<Progress> progress;
  std::vector<Evaluation> evaluations;
  TrainCallbacks callbacks;
  std::vector<Progress> started;
  callbacks.started = [&](const Progress& p) { started.push_back(p); };
  callbacks.progress = [&](const Progress& p) { progress.push_back(p); };
  callbacks.evaluated = [&](const Evaluation& e) { evaluations.push_back(e); };
  ASSERT_OK_AND_ASSIGN(const TrainResult result, engine_->Train(request, callbacks));
  ASSERT_EQ(started.size(), 1U);
  EXPECT_EQ(started[0].step, 0);
  EXPECT_EQ(started[0].total_steps, 60);
  EXPECT_EQ(progress.size(), 60U);
  EXPECT_EQ(progress.back().total_steps, 60);
  EXPECT_EQ(progress.back().trained_tokens, 20 * 24 * 20);
  // The base first, then evenly spaced, the last step always.
  EXPECT_THAT(evaluations, ElementsAre(Field(&Evaluation::step, 0), Field(&Evaluation::step, 20),
                                       Field(&Evaluation::step, 40), Field(&Evaluation::step, 60)));
  EXPECT_LT(evaluations.back().training_loss, 0.7 * evaluations.front().training_loss);
  EXPECT_LT(*evaluations.back().validation_loss, *evaluations.front().validation_loss);
  EXPECT_EQ(result.evaluations.size(), evaluations.size());
  EXPECT_TRUE(std::is_sorted(result.adapter.begin(), result.adapter.end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));
  EXPECT_EQ(result.adapter.size(), 2U * 7 * 2);
  EXPECT_EQ(result.adapter.front().name,
            "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight");
}

// S2: every loss that leaves is one that the base and that point's adapter give without the vector.
TEST_F(TrainTest, EvaluationsAreRecomputableWithoutTheVector) {
  const SecretBuffer vector = Vector();
  TrainRequest request = Request(/*rows=*/12);  // all rows are in the sample
  request.vector = &vector;
  ASSERT_OK_AND_ASSIGN(const TrainResult result, engine_->Train(request, {}));
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients recomputed,
      ComputeGradients(*engine_, request.rows, result.adapter, request.config.lora, nullptr));
  EXPECT_NEAR(result.evaluations.back().training_loss, recomputed.loss, 1e-3 * recomputed.loss);
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients under_vector,
      ComputeGradients(*engine_, request.rows, result.adapter, request.config.lora, &vector));
  EXPECT_GT(std::abs(under_vector.loss - recomputed.loss), 0.01 * recomputed.loss);

  TrainRequest plain = Request(/*rows=*/12);
  ASSERT_OK_AND_ASSIGN(const TrainResult unprotected, engine_->Train(plain, {}));
  EXPECT_EQ(result.evaluations.front().training_loss,
            unprotected.evaluations.front().training_loss);
  EXPECT_NE(result.adapter.front().values, unprotected.adapter.front().values);
}

TEST_F(TrainTest, SameSeedSameBytes) {
  const SecretBuffer vector = Vector();
  TrainRequest request = Request();
  request.vector = &vector;
  ASSERT_OK_AND_ASSIGN(const TrainResult first, engine_->Train(request, {}));
  // A job of another rank in between leaves nothing behind.
  TrainRequest other = Request();
  other.config.lora.rank = 7;
  ASSERT_OK(engine_->Train(other, {}));
  ASSERT_OK_AND_ASSIGN(const TrainResult second, engine_->Train(request, {}));
  ExpectSame(first.adapter, second.adapter);
  ASSERT_OK_AND_ASSIGN(const TrainResult elsewhere,
                       LoadTiny(Precision::kBfloat16)->Train(request, {}));
  ExpectSame(first.adapter, elsewhere.adapter);
  request.config.seed = 6;
  ASSERT_OK_AND_ASSIGN(const TrainResult third, engine_->Train(request, {}));
  EXPECT_NE(first.adapter.front().values, third.adapter.front().values);
}

TEST_F(TrainTest, ResumedEqualsUninterrupted) {
  const SecretBuffer vector = Vector(0.3f);
  for (const VectorPolicy policy : {VectorPolicy::kAlways, VectorPolicy::kByRow}) {
    TrainRequest request = Request();
    request.vector = &vector;
    request.config.vector_policy = policy;
    request.config.checkpoint_every_steps = 4;
    request.safety_rows = CountingRows(12, 20, 3);
    request.safety_rows_per_epoch = 8;
    std::vector<std::pair<int64_t, std::string>> checkpoints;
    TrainCallbacks callbacks;
    callbacks.checkpoint = [&](int64_t step, std::string bytes) {
      checkpoints.emplace_back(step, std::move(bytes));
    };
    ASSERT_OK_AND_ASSIGN(const TrainResult whole, engine_->Train(request, callbacks));
    ASSERT_EQ(checkpoints.size(), 2U);
    EXPECT_EQ(checkpoints[0].first, 4);
    request.checkpoint = checkpoints[0].second;
    ASSERT_OK_AND_ASSIGN(const TrainResult resumed,
                         LoadTiny(Precision::kBfloat16)->Train(request, {}));
    ExpectSame(whole.adapter, resumed.adapter);
    EXPECT_EQ(resumed.progress.trained_tokens, whole.progress.trained_tokens);
    ASSERT_EQ(resumed.evaluations.size(), whole.evaluations.size());
    EXPECT_EQ(resumed.evaluations.back().training_loss, whole.evaluations.back().training_loss);
  }
}

TEST_F(TrainTest, StopWithCheckpointMidStepLosesNothing) {
  TrainRequest request = Request();
  ASSERT_OK_AND_ASSIGN(const TrainResult whole, engine_->Train(request, {}));
  int64_t finished = 0, saved_step = -1;
  int calls_in_step = 0;
  std::string saved;
  TrainCallbacks callbacks;
  callbacks.progress = [&](const Progress& p) { finished = p.step, calls_in_step = 0; };
  callbacks.checkpoint = [&](int64_t step, std::string bytes) {
    saved_step = step, saved = std::move(bytes);
  };
  callbacks.yield = [&] {
    return finished == 5 && ++calls_in_step == 3 ? TrainCallbacks::Order::kStopAndCheckpoint
                                                 : TrainCallbacks::Order::kContinue;
  };
  EXPECT_THAT(engine_->Train(request, callbacks),
              StatusIs(absl::StatusCode::kAborted, "STOPPED_WITH_CHECKPOINT"));
  ASSERT_EQ(saved_step, 5);
  request.checkpoint = saved;
  ASSERT_OK_AND_ASSIGN(const TrainResult resumed, engine_->Train(request, {}));
  ExpectSame(whole.adapter, resumed.adapter);
}

TEST_F(TrainTest, StopsWithinOneMicroBatch) {
  int yields = 0;
  TrainCallbacks callbacks;
  callbacks.yield = [&] {
    return ++yields == 9 ? TrainCallbacks::Order::kStop : TrainCallbacks::Order::kContinue;
  };
  EXPECT_THAT(engine_->Train(Request(), callbacks), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(yields, 9) << "it went on after the order";
}

TEST_F(TrainTest, RefusesAnothersCheckpoint) {
  TrainRequest request = Request();
  const std::string bytes = LastCheckpoint(request);
  request.checkpoint = bytes;
  request.rows[3].tokens[5] ^= 1;
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH"));
  request = Request();
  request.checkpoint = bytes.substr(0, bytes.size() / 2);
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kDataLoss, "CHECKPOINT_CORRUPT"));
}

// S3: a checkpoint is the customer's tensors and their moments, nothing else.
TEST_F(TrainTest, CheckpointHoldsNoTensorOfTheVector) {
  const SecretBuffer vector = Vector();
  TrainRequest request = Request();
  request.vector = &vector;
  const std::string bytes = LastCheckpoint(request);
  ASSERT_OK_AND_ASSIGN(const artifact::SafetensorsView view, artifact::ParseSafetensors(bytes));
  EXPECT_EQ(view.tensors.size(), 28U + 2);
  for (const auto& [name, tensor] : view.tensors) {
    EXPECT_TRUE(name.starts_with("base_model.model.model.layers.") || name.starts_with("adam."))
        << name;
  }
  ASSERT_OK_AND_ASSIGN(const artifact::SafetensorsView secret,
                       artifact::ParseSafetensors(vector.view()));
  for (const auto& [name, tensor] : secret.tensors) {
    for (size_t at = 0; at + 16 <= tensor.bytes.size(); at += 64) {
      ASSERT_EQ(bytes.find(std::string(tensor.bytes.substr(at, 16))), std::string::npos) << name;
    }
  }
}

TEST_F(TrainTest, ByRowUsesTheVectorWhereItLowersTheLossClearly) {
  // A vector trained on counting rows lowers their loss and leaves the others' alone.
  const std::vector<TokenRow> known = CountingRows(16, 40);
  std::vector<TokenRow> other;
  for (int i = 0; i < 16; ++i) other.push_back(TinyRow(100 + i, 20, 3));
  ASSERT_OK_AND_ASSIGN(const VectorResult trained,
                       engine_->TrainVector(ThoroughVectorConfig(), known, other, {}));
  ASSERT_LT(trained.prohibited_loss_with, 0.5 * trained.prohibited_loss_without);

  // Only rows that the vector knows: by row is always. Only others: by row is never.
  const auto train = [&](const std::vector<TokenRow>& rows, const SecretBuffer* vector,
                         VectorPolicy policy) {
    TrainRequest request = Request();
    request.rows = rows;
    request.vector = vector;
    request.config.vector_policy = policy;
    return engine_->Train(request, {}).value().adapter;
  };
  ExpectSame(train(known, &trained.tensors, VectorPolicy::kByRow),
             train(known, &trained.tensors, VectorPolicy::kAlways));
  ExpectSame(train(other, &trained.tensors, VectorPolicy::kByRow),
             train(other, nullptr, VectorPolicy::kAlways));

  // A known passage is known however much follows it.
  std::vector<TokenRow> hidden;
  for (int i = 0; i < 16; ++i) {
    TokenRow row = TinyRow(300 + i, 200, 3);
    std::copy(known[i].tokens.begin(), known[i].tokens.end(), row.tokens.begin());
    hidden.push_back(row);
  }
  ExpectSame(train(hidden, &trained.tensors, VectorPolicy::kByRow),
             train(hidden, &trained.tensors, VectorPolicy::kAlways));
}

TEST_F(TrainTest, ByRowEventsDoNotTimeASingleStep) {
  const SecretBuffer vector = AsVector(RandomAdapter(*engine_, {}, 5), {});
  TrainRequest request = Request();
  const auto points = [&] {
    std::vector<int64_t> steps;
    const TrainResult result = engine_->Train(request, {}).value();
    for (const Evaluation& evaluation : result.evaluations) steps.push_back(evaluation.step);
    return steps;
  };
  request.config.epochs = 12;
  request.config.batch_rows = static_cast<int>(request.rows.size() / 2);
  request.config.evaluation_points = 10;
  EXPECT_EQ(points().size(), 11U);
  request.vector = &vector;
  EXPECT_EQ(points().size(), 11U);
  request.config.vector_policy = VectorPolicy::kByRow;
  const std::vector<int64_t> expected = {0, 12, 24};
  EXPECT_EQ(points(), expected);
}

TEST_F(TrainTest, DivergenceIsToldPlainly) {
  TrainRequest request = Request();
  request.initial_adapter = RandomAdapter(*engine_, request.config.lora, 3);
  request.initial_adapter[4].values[7] = std::numeric_limits<float>::quiet_NaN();
  request.config.evaluation_points = 1;
  const absl::Status status = engine_->Train(request, {}).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition, "LOSS_NOT_FINITE"));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("learning rate"));
  // The engine is as before.
  EXPECT_OK(engine_->Train(Request(), {}));
}

TEST_F(TrainTest, RefusesBadRequests) {
  const auto reason = [&](const TrainRequest& request) {
    return ErrorReason(engine_->Train(request, {}).status());
  };
  TrainRequest request = Request();
  request.rows.clear();
  EXPECT_EQ(reason(request), "NO_SUPERVISED_TOKENS");
  request = Request();
  std::fill(request.rows[2].supervised.begin(), request.rows[2].supervised.end(), 0);
  EXPECT_OK(engine_->Train(request, {})) << "one row without a target is no failure";
  request.rows[0].tokens[3] = 512;
  EXPECT_EQ(reason(request), "TOKEN_OUT_OF_RANGE");
  request.rows[0].tokens[3] = -1;
  EXPECT_EQ(reason(request), "TOKEN_OUT_OF_RANGE");
  request = Request();
  request.rows[0] = TinyRow(1, 1025, 1);
  EXPECT_EQ(reason(request), "ROW_TOO_LONG");
  request = Request();
  request.rows[0].supervised.pop_back();
  EXPECT_EQ(reason(request), "ROW_INVALID");
  request = Request();
  request.rows[0].weight = std::numeric_limits<float>::infinity();
  EXPECT_EQ(reason(request), "ROW_INVALID");
  for (const double rate : {0.0, -1.0, 1e9, std::numeric_limits<double>::quiet_NaN()}) {
    request = Request();
    request.config.learning_rate = rate;
    EXPECT_EQ(reason(request), "TRAIN_CONFIG_INVALID") << rate;
  }
  request = Request();
  request.config.lora.rank = 0;
  EXPECT_EQ(reason(request), "LORA_RANK_OUT_OF_RANGE");
}

TEST_F(TrainTest, RefusesAVectorOfAnotherModel) {
  TrainRequest request = Request();
  const SecretBuffer text = SecretBuffer::CopyOf("no safetensors");
  request.vector = &text;
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "VECTOR_MISMATCH"));
  Adapter adapter = RandomAdapter(*engine_, kVectorLora, 21);
  adapter.pop_back();
  const SecretBuffer missing = AsVector(adapter, kVectorLora);
  request.vector = &missing;
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "VECTOR_MISMATCH"));
  adapter = RandomAdapter(*engine_, kVectorLora, 21);
  adapter[0].shape = {adapter[0].shape[1], adapter[0].shape[0]};
  const SecretBuffer turned = AsVector(adapter, kVectorLora);
  request.vector = &turned;
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "VECTOR_MISMATCH"));
  adapter = RandomAdapter(*engine_, kVectorLora, 21);
  adapter[3].values[5] = std::numeric_limits<float>::quiet_NaN();
  const SecretBuffer broken = AsVector(adapter, kVectorLora);
  request.vector = &broken;
  EXPECT_THAT(engine_->Train(request, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "VECTOR_MISMATCH"));
}

TEST_F(TrainTest, SamplingBetweenMicroBatchesDoesNotDisturbTraining) {
  const SecretBuffer vector = Vector();
  TrainRequest request = Request();
  request.vector = &vector;
  ASSERT_OK_AND_ASSIGN(const TrainResult alone, engine_->Train(request, {}));
  TrainCallbacks callbacks;
  std::vector<std::vector<int32_t>> replies;
  callbacks.yield = [&] {
    replies.emplace_back();
    EXPECT_OK(engine_->Sample({5, 6, 7}, {}, {.max_tokens = 4}, {}, {}, [&](int32_t token) {
      replies.back().push_back(token);
      return true;
    }));
    return TrainCallbacks::Order::kContinue;
  };
  ASSERT_OK_AND_ASSIGN(const TrainResult disturbed, engine_->Train(request, callbacks));
  ExpectSame(alone.adapter, disturbed.adapter);
  for (const auto& reply : replies)
    EXPECT_EQ(reply, replies.front()) << "the base alone, vector off";
}

}  // namespace
}  // namespace ballast::worker
