// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpoint.h"

#include <functional>
#include <set>
#include <string>

#include "common/artifact/model_config.h"
#include "gtest/gtest.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using artifact::ModelConfig;

// A checkpoint of one model must not continue on another, even of the same sizes.
TEST(RequestDigestTest, ChangesWithEveryPropertyOfTheModel) {
  const ModelConfig base{.layers = 2,
                         .hidden = 8,
                         .intermediate = 12,
                         .heads = 8,
                         .kv_heads = 4,
                         .head_dim = 64,
                         .vocabulary = 32,
                         .context_tokens = 16};
  std::set<std::string> digests = {RequestDigest({}, base, "float32"),
                                   RequestDigest({}, base, "bfloat16")};
  const std::function<void(ModelConfig&)> changes[] = {
      [](ModelConfig& c) { c.layers = 3; },
      [](ModelConfig& c) { c.hidden = 16; },
      [](ModelConfig& c) { c.intermediate = 16; },
      [](ModelConfig& c) { c.vocabulary = 33; },
      [](ModelConfig& c) { c.heads = 4, c.head_dim = 128; },
      [](ModelConfig& c) { c.kv_heads = 2; },
      [](ModelConfig& c) { c.rms_epsilon = 1e-5; },
      [](ModelConfig& c) { c.rope_theta = 5e5; },
      [](ModelConfig& c) { c.rope_scaling.emplace(); },
      [](ModelConfig& c) { c.rope_scaling.emplace().factor = 32; },
      [](ModelConfig& c) { c.tied_embeddings = true; },
  };
  for (const auto& change : changes) {
    ModelConfig changed = base;
    change(changed);
    digests.insert(RequestDigest({}, changed, "float32"));
  }
  EXPECT_EQ(digests.size(), 2 + std::size(changes));
}

}  // namespace
}  // namespace ballast::worker
