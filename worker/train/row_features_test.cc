// SPDX-License-Identifier: Apache-2.0
// Engine::RowFeatures on the tiny model.
#include <cmath>
#include <memory>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/row_windows.h"
#include "worker/train/testing/tiny.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using ::ballast::testing::StatusIs;
using testing::CountingRows;
using ::testing::Each;
using ::testing::FloatNear;
using testing::LoadTiny;
using ::testing::Pointwise;
using testing::TinyRow;

class RowFeaturesTest : public ::testing::Test {
 protected:
  std::vector<std::vector<float>> Features(const std::vector<TokenRow>& rows) {
    auto features = engine_->RowFeatures(rows, nullptr);
    EXPECT_OK(features);
    return *std::move(features);
  }

  std::unique_ptr<Engine> engine_ = LoadTiny(Precision::kFloat32);
};

TEST_F(RowFeaturesTest, ARowsDoNotDependOnItsNeighbours) {
  std::vector<TokenRow> rows = CountingRows(30, 20);
  rows.push_back(TinyRow(5, 3, 1));
  const auto together = Features(rows);
  ASSERT_EQ(together.size(), rows.size());
  for (const size_t i : {size_t{0}, size_t{17}, rows.size() - 1}) {
    EXPECT_THAT(Features({rows[i]})[0], Pointwise(FloatNear(1e-5f), together[i])) << i;
  }
  EXPECT_NE(together[0], together[17]);
}

TEST_F(RowFeaturesTest, TheyAreOfTheSupervisedTokensAlone) {
  TokenRow row = TinyRow(6, 5, 2);
  TokenRow other = row;
  other.tokens.back() = 42;  // is predicted, and predicts nothing
  EXPECT_EQ(Features({row})[0], Features({other})[0]);
  other = row;
  other.tokens[2] = 42;
  EXPECT_NE(Features({row})[0], Features({other})[0]);
}

TEST_F(RowFeaturesTest, OfAWindowTheyAreOfItsTokensAlone) {
  // Rows of 20, 32 and 100 targets.
  const std::vector<TokenRow> rows = {TinyRow(1, 23, 3), TinyRow(2, 35, 3), TinyRow(3, 103, 3)};
  ASSERT_OK_AND_ASSIGN(const auto windows, engine_->WindowFeatures(rows, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto whole, engine_->RowFeatures(rows, nullptr));
  ASSERT_EQ(windows.size(), 3U);
  for (const size_t row : {0, 1}) {
    ASSERT_EQ(windows[row].size(), 1U);
    EXPECT_EQ(windows[row][0], whole[row]);
  }
  const auto places = RowWindows(100);
  ASSERT_EQ(windows[2].size(), places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    TokenRow alone = rows[2];
    for (int64_t t = 0; t < 100; ++t) {
      alone.supervised[3 + t] =
          t >= places[i].begin && t < places[i].begin + places[i].count ? 1 : 0;
    }
    ASSERT_OK_AND_ASSIGN(const auto one, engine_->RowFeatures({alone}, nullptr));
    for (size_t j = 0; j < one[0].size(); ++j) ASSERT_NEAR(windows[2][i][j], one[0][j], 1e-3);
  }
}

TEST_F(RowFeaturesTest, ARowWithoutASupervisedTokenHasZeros) {
  std::vector<TokenRow> rows = CountingRows(2, 20);
  for (auto& supervised : rows[1].supervised) supervised = 0;
  const auto features = Features(rows);
  EXPECT_THAT(features[1], Each(0.0f));
  EXPECT_THAT(features[0], ::testing::Not(Each(0.0f)));
  EXPECT_THAT(Features({rows[1]})[0], Each(0.0f));
}

TEST_F(RowFeaturesTest, StopsByOrderAndRefusesBadRows) {
  EXPECT_THAT(engine_->RowFeatures(CountingRows(3, 20), [] { return false; }),
              StatusIs(absl::StatusCode::kCancelled, "STOPPED"));
  std::vector<TokenRow> rows = CountingRows(3, 20);
  rows[1].tokens[0] = -1;
  EXPECT_THAT(engine_->RowFeatures(rows, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, "TOKEN_OUT_OF_RANGE"));
}

}  // namespace
}  // namespace ballast::worker
