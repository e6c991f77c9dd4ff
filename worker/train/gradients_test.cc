// SPDX-License-Identifier: Apache-2.0
// The hand-written backward against autograd, and what packing and merging must not change.
#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/train/inspect.h"
#include "worker/train/packed_batch.h"
#include "worker/train/testing/reference_model.h"
#include "worker/train/testing/tiny.h"

namespace ballast::worker {
namespace {

using testing::AsVector;
using testing::LoadTiny;
using testing::RandomAdapter;
using testing::TinyRow;

// Documents of many lengths: several in one segment, one over several blocks, one with an
// unsupervised end, one of weight 0.
std::vector<TokenRow> ManyRows() {
  std::vector<TokenRow> rows = {
      TinyRow(1, 5, 1),         TinyRow(2, 40, 20),      TinyRow(3, 300, 100), TinyRow(4, 2, 1),
      TinyRow(5, 129, 7, 2.5f), TinyRow(6, 30, 3, 0.0f), TinyRow(7, 128, 1),   TinyRow(8, 17, 16)};
  for (size_t t = 25; t < 40; ++t) rows[1].supervised[t] = 0;
  return rows;
}

double LargestRelativeError(const LossAndGradients& ours,
                            const std::map<std::string, at::Tensor>& theirs) {
  double largest = 0;
  EXPECT_EQ(ours.gradients.size(), theirs.size());
  for (const NamedTensor& tensor : ours.gradients) {
    const at::Tensor& expected = theirs.at(tensor.name);
    const at::Tensor actual =
        at::from_blob(const_cast<float*>(tensor.values.data()), tensor.shape, at::kFloat);
    const double error = ((actual - expected).abs().max() / expected.abs().max()).item<double>();
    EXPECT_TRUE(std::isfinite(error)) << tensor.name;
    largest = std::max(largest, error);
  }
  return largest;
}

class GradientsTest : public ::testing::TestWithParam<bool> {
 protected:
  bool bf16() const { return GetParam(); }
  std::unique_ptr<Engine> engine_ = LoadTiny(bf16() ? Precision::kBfloat16 : Precision::kFloat32);
  testing::ReferenceModel reference_{testing::TinyFolder()};
  const LoraConfig lora_{.rank = 6, .alpha = 9.0f};
  const Adapter adapter_ = RandomAdapter(*engine_, lora_, 3);

  void ExpectEqualToAutograd(const std::vector<TokenRow>& rows) {
    ASSERT_OK_AND_ASSIGN(const LossAndGradients ours,
                         ComputeGradients(*engine_, rows, adapter_, lora_, nullptr));
    std::map<std::string, at::Tensor> theirs;
    const double loss = reference_.Gradients(rows, adapter_, lora_, theirs);
    EXPECT_NEAR(ours.loss, loss, bf16() ? 0.01 * loss : 1e-5 * loss);
    EXPECT_LT(LargestRelativeError(ours, theirs), bf16() ? 0.15 : 2e-4);
  }
};

TEST_P(GradientsTest, EqualAutogradOnPackedDocuments) { ExpectEqualToAutograd(ManyRows()); }

// Rows that share beginnings of different lengths, up to a row that is another one, and to one that
// has targets where others have none.
std::vector<TokenRow> RowsThatBeginAlike() {
  std::vector<TokenRow> rows;
  const auto add = [&](uint64_t seed, int length, int prompt, float weight = 1.0f) {
    TokenRow row = TinyRow(50, 90, 90, weight);  // no target
    row.tokens.resize(prompt);
    row.supervised.resize(prompt);
    const TokenRow own = TinyRow(seed, length, 0);
    row.tokens.insert(row.tokens.end(), own.tokens.begin(), own.tokens.end());
    row.supervised.insert(row.supervised.end(), own.supervised.begin(), own.supervised.end());
    rows.push_back(row);
  };
  add(1, 12, 90);
  add(2, 100, 90, 2.5f);
  add(3, 5, 60);
  add(1, 12, 90);
  rows.back().supervised[40] = 1;  // what predicts it, and all that follows, is its own
  add(1, 12, 90);
  add(4, 1, 90, 0.0f);
  add(5, 300, 30);
  rows.push_back(TinyRow(9, 20, 10));
  return rows;
}

TEST_P(GradientsTest, EqualAutogradWhereRowsBeginAlike) {
  const std::vector<TokenRow> rows = RowsThatBeginAlike();
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  const PackedBatch batch = Pack(pointers, at::kCPU);
  ASSERT_LT(batch.tokens, 0.7 * static_cast<double>(batch.places));
  ExpectEqualToAutograd(rows);

  ASSERT_OK_AND_ASSIGN(const std::vector<double> losses,
                       RowLosses(*engine_, rows, adapter_, lora_, nullptr));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].weight == 0) continue;  // alone it is refused
    ASSERT_OK_AND_ASSIGN(const std::vector<double> alone,
                         RowLosses(*engine_, {rows[i]}, adapter_, lora_, nullptr));
    EXPECT_NEAR(losses[i], alone[0], (bf16() ? 0.02 : 1e-5) * alone[0]) << "row " << i;
  }
}

// All tokens are targets: the last layer then runs on every row.
TEST_P(GradientsTest, EqualAutogradWhereEveryTokenIsATarget) {
  ExpectEqualToAutograd({TinyRow(1, 50, 0), TinyRow(2, 70, 0)});
}

TEST_P(GradientsTest, LogitsEqualTheReference) {
  const TokenRow row = TinyRow(9, 200, 1);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> ours, engine_->Logits(row.tokens, adapter_, lora_));
  std::map<std::string, at::Tensor> parameters;
  for (const NamedTensor& tensor : adapter_) {
    parameters[tensor.name] =
        at::from_blob(const_cast<float*>(tensor.values.data()), tensor.shape, at::kFloat);
  }
  const at::Tensor theirs = reference_.Logits(row.tokens, parameters, lora_.alpha / lora_.rank);
  ASSERT_EQ(static_cast<int64_t>(ours.size()), theirs.numel());
  const at::Tensor actual =
      at::from_blob(const_cast<float*>(ours.data()), theirs.sizes(), at::kFloat);
  EXPECT_LT(((actual - theirs).abs().max() / theirs.abs().max()).item<double>(),
            bf16() ? 0.04 : 1e-5);
}

TEST_P(GradientsTest, PackedEqualsOneByOne) {
  const std::vector<TokenRow> rows = ManyRows();
  ASSERT_OK_AND_ASSIGN(const LossAndGradients packed,
                       ComputeGradients(*engine_, rows, adapter_, lora_, nullptr));
  double loss = 0, weight = 0;
  std::map<std::string, at::Tensor> sum;
  for (const TokenRow& row : rows) {
    double targets = 0;
    for (size_t t = 1; t < row.tokens.size(); ++t) targets += row.supervised[t];
    if (row.weight == 0) continue;
    ASSERT_OK_AND_ASSIGN(const LossAndGradients alone,
                         ComputeGradients(*engine_, {row}, adapter_, lora_, nullptr));
    loss += alone.loss * targets * row.weight;
    weight += targets * row.weight;
    for (const NamedTensor& tensor : alone.gradients) {
      at::Tensor scaled =
          at::from_blob(const_cast<float*>(tensor.values.data()), tensor.shape, at::kFloat) *
          targets * row.weight;
      at::Tensor& total = sum[tensor.name];
      total = total.defined() ? total + scaled : scaled;
    }
  }
  for (auto& [name, total] : sum) total = total / weight;
  EXPECT_NEAR(packed.loss, loss / weight, (bf16() ? 2e-3 : 1e-6) * packed.loss);
  EXPECT_LT(LargestRelativeError(packed, sum), bf16() ? 0.1 : 1e-4);
}

TEST_P(GradientsTest, MergedVectorEqualsItsAdapterBeside) {
  const LoraConfig vector_lora{.rank = 4, .alpha = 8.0f};
  const Adapter vector_adapter = RandomAdapter(*engine_, vector_lora, 21, 0.3f);
  const SecretBuffer vector = AsVector(vector_adapter, vector_lora);
  Adapter zero = vector_adapter;
  for (NamedTensor& tensor : zero) std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
  ASSERT_OK_AND_ASSIGN(const LossAndGradients merged,
                       ComputeGradients(*engine_, ManyRows(), zero, vector_lora, &vector));
  ASSERT_OK_AND_ASSIGN(
      const LossAndGradients beside,
      ComputeGradients(*engine_, ManyRows(), vector_adapter, vector_lora, nullptr));
  ASSERT_OK_AND_ASSIGN(const LossAndGradients without,
                       ComputeGradients(*engine_, ManyRows(), zero, vector_lora, nullptr));
  EXPECT_NEAR(merged.loss, beside.loss, (bf16() ? 5e-3 : 2e-6) * beside.loss);
  EXPECT_GT(std::abs(merged.loss - without.loss), 0.005 * without.loss) << "the vector did nothing";
}

INSTANTIATE_TEST_SUITE_P(Precisions, GradientsTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Bf16" : "Fp32"; });

}  // namespace
}  // namespace ballast::worker
