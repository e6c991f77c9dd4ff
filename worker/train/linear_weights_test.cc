// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cstdint>

#include "common/artifact/model_config.h"
#include "gtest/gtest.h"
#include "worker/train/lora.h"
#include "worker/train/model.h"

namespace ballast::worker {
namespace {

const artifact::ModelConfig kConfig{.layers = 2,
                                    .hidden = 8,
                                    .intermediate = 12,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .head_dim = 4,
                                    .vocabulary = 32,
                                    .context_tokens = 16};

// The adapter's columns of all groups, in a row.
at::Tensor Columns(const LinearWeights& weights) {
  std::vector<at::Tensor> columns;
  for (int layer = 0; layer < weights.layers(); ++layer) {
    for (int g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      const at::Tensor& all = weights.augmented(layer, group);
      const int64_t in = weights.base(layer, group).size(1);
      columns.push_back(all.narrow(1, in, all.size(1) - in).flatten());
    }
  }
  return at::cat(columns);
}

class LinearWeightsTest : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(LinearWeightsTest, HoldsTheScaledBUntilItIsCleared) {
  constexpr int64_t kRank = 3;
  const LoraLayout layout(kConfig, kRank);
  const at::Tensor parameters = at::randn({layout.size()});
  LinearWeights weights(kConfig, GetParam(), at::kCPU, /*secret=*/false);
  weights.Reserve(kRank);
  weights.LoadAdapter(layout, parameters, 1.7f, /*version=*/1);
  for (const LoraSlot& slot : layout.slots()) {
    if (!slot.is_b || slot.layer != 1 || slot.module != kUp) continue;
    const at::Tensor expected =
        (1.7f * parameters.narrow(0, slot.offset, slot.rows * slot.columns).view({-1, kRank}))
            .to(GetParam());
    // The second module of its group: below gate's rows, right of gate's columns.
    const at::Tensor found = weights.augmented(1, kGateUp)
                                 .narrow(0, kConfig.intermediate, kConfig.intermediate)
                                 .narrow(1, kConfig.hidden + kRank, kRank);
    EXPECT_TRUE(at::equal(found, expected));
  }
  // What is given back to the allocator, here and by the destructor, has been zeroed in place.
  const at::Tensor columns_before = weights.augmented(0, kQkv);
  EXPECT_GT(Columns(weights).abs().sum().item<float>(), 0);
  weights.ClearAdapter();
  EXPECT_EQ(Columns(weights).abs().sum().item<float>(), 0);
  weights.LoadAdapter(layout, parameters, 1.7f, /*version=*/1);
  EXPECT_GT(columns_before.abs().sum().item<float>(), 0);
  weights.Reserve(kRank + 1);
  EXPECT_EQ(columns_before.abs().sum().item<float>(), 0);
  EXPECT_EQ(weights.rank(), kRank + 1);
}

INSTANTIATE_TEST_SUITE_P(Types, LinearWeightsTest, ::testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace ballast::worker
