// SPDX-License-Identifier: Apache-2.0
// Engine::Sample and SampleMany on the tiny model.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/train/inspect.h"
#include "worker/train/testing/tiny.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using testing::LoadTiny;
using testing::RandomAdapter;
using testing::TinyRow;

class SampleTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> engine_ = LoadTiny(Precision::kBfloat16);
};

TEST_F(SampleTest, GreedySampleFollowsTheLogits) {
  const LoraConfig lora{.rank = 4, .alpha = 8.0f};
  const Adapter adapter = RandomAdapter(*engine_, lora, 3, 0.2f);
  std::vector<int32_t> tokens = TinyRow(1, 9, 1).tokens, expected;
  const std::vector<int32_t> prompt = tokens;
  for (int i = 0; i < 6; ++i) {
    ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, engine_->Logits(tokens, adapter, lora));
    const auto last = logits.end() - testing::kTinyVocabulary;
    tokens.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
    expected.push_back(tokens.back());
  }
  std::vector<int32_t> sampled;
  ASSERT_OK(engine_->Sample(prompt, {}, {.max_tokens = 6}, adapter, lora, [&](int32_t token) {
    sampled.push_back(token);
    return true;
  }));
  EXPECT_EQ(sampled, expected);

  sampled.clear();
  ASSERT_OK(
      engine_->Sample(prompt, {expected[3]}, {.max_tokens = 6}, adapter, lora, [&](int32_t token) {
        sampled.push_back(token);
        return true;
      }));
  EXPECT_LE(sampled.size(), 3U) << "an end token ends the reply and is not part of it";
}

TEST_F(SampleTest, SampleDependsOnTheSeedAlone) {
  const auto sample = [&](uint64_t seed) {
    std::vector<int32_t> tokens;
    EXPECT_OK(engine_->Sample({1, 2, 3}, {}, {.max_tokens = 12, .temperature = 1.0, .seed = seed},
                              {}, {}, [&](int32_t token) {
                                tokens.push_back(token);
                                return true;
                              }));
    return tokens;
  };
  EXPECT_EQ(sample(1), sample(1));
  EXPECT_NE(sample(1), sample(2));
}

TEST_F(SampleTest, RefusesBadPrompts) {
  const auto ignore = [](int32_t) { return true; };
  EXPECT_EQ(ErrorReason(engine_->Sample({}, {}, {}, {}, {}, ignore)), "PROMPT_EMPTY");
  EXPECT_EQ(ErrorReason(engine_->Sample({512}, {}, {}, {}, {}, ignore)), "TOKEN_OUT_OF_RANGE");
  EXPECT_EQ(ErrorReason(engine_->Sample({1}, {}, {.max_tokens = 1024}, {}, {}, ignore)),
            "PROMPT_TOO_LONG");
  EXPECT_EQ(ErrorReason(engine_->Sample({1}, {}, {.temperature = -1}, {}, {}, ignore)),
            "TEMPERATURE_INVALID");
  const LoraConfig lora{.rank = 4, .alpha = 8.0f};
  Adapter adapter = RandomAdapter(*engine_, lora, 3);
  adapter.pop_back();
  EXPECT_EQ(ErrorReason(engine_->Sample({1}, {}, {}, adapter, lora, ignore)), "ADAPTER_MISMATCH");
}

// In float32, where the order of a sum decides no token.
class SampleManyTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> engine_ = LoadTiny(Precision::kFloat32);
};

// More prompts than places, of very different lengths, so that replies start, end and wait at
// different times.
std::vector<std::vector<int32_t>> ManyPrompts() {
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 90; ++i) prompts.push_back(TinyRow(i, 1 + (i * 17) % 60, 1).tokens);
  return prompts;
}

// The same behind a beginning of `length` tokens.
std::vector<std::vector<int32_t>> PromptsThatBeginAlike(int length) {
  std::vector<std::vector<int32_t>> prompts = ManyPrompts();
  const std::vector<int32_t> beginning = TinyRow(1000, length, 1).tokens;
  for (auto& prompt : prompts) prompt.insert(prompt.begin(), beginning.begin(), beginning.end());
  return prompts;
}

TEST_F(SampleManyTest, ManyRepliesEqualThoseOneByOne) {
  const LoraConfig lora{.rank = 4, .alpha = 8.0f};
  const Adapter adapter = RandomAdapter(*engine_, lora, 3, 0.2f);
  const SampleConfig config{.max_tokens = 12};
  std::vector<int32_t> ends;
  for (int32_t token = 0; token < 40; ++token) ends.push_back(token * 12);
  // One of the prompts is the common beginning and one token more.
  for (const auto& prompts : {ManyPrompts(), PromptsThatBeginAlike(30)}) {
    std::vector<std::vector<int32_t>> expected(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      ASSERT_OK(engine_->Sample(prompts[i], ends, config, adapter, lora, [&](int32_t token) {
        expected[i].push_back(token);
        return true;
      }));
    }
    ASSERT_OK_AND_ASSIGN(const auto replies,
                         engine_->SampleMany(prompts, ends, config, {{&adapter, lora}}, nullptr));
    EXPECT_EQ(replies, expected);
    size_t shortest = 12, longest = 0;
    for (const auto& reply : replies) {
      shortest = std::min(shortest, reply.size());
      longest = std::max(longest, reply.size());
    }
    EXPECT_LT(shortest, longest)
        << "the replies must end at different times for this test to say much";
  }
}

TEST_F(SampleManyTest, EqualPromptsHaveEqualReplies) {
  const std::vector<int32_t> prompt = TinyRow(3, 20, 1).tokens;
  ASSERT_OK_AND_ASSIGN(const auto alone,
                       engine_->SampleMany({prompt}, {}, {.max_tokens = 8}, {}, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto replies, engine_->SampleMany({prompt, prompt, prompt}, {},
                                                               {.max_tokens = 8}, {}, nullptr));
  for (const auto& reply : replies) EXPECT_EQ(reply, alone.front());
}

TEST_F(SampleManyTest, AReplyDoesNotDependOnItsNeighbours) {
  const std::vector<std::vector<int32_t>> prompts = ManyPrompts();
  const SampleConfig config{.max_tokens = 8, .temperature = 1.0, .seed = 4};
  ASSERT_OK_AND_ASSIGN(const auto all, engine_->SampleMany(prompts, {}, config, {}, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto some, engine_->SampleMany({prompts.begin(), prompts.begin() + 5},
                                                            {}, config, {}, nullptr));
  EXPECT_EQ(std::vector<std::vector<int32_t>>(all.begin(), all.begin() + 5), some);
}

TEST_F(SampleManyTest, AdaptersAddUpWithTheirWeights) {
  const LoraConfig lora{.rank = 4, .alpha = 8.0f}, wide{.rank = 8, .alpha = 4.0f};
  const LoraConfig doubled{.rank = 4, .alpha = 16.0f};
  const Adapter one = RandomAdapter(*engine_, lora, 3, 0.2f),
                two = RandomAdapter(*engine_, wide, 4, 0.2f);
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {9, 8}, {4}, {100, 7, 30, 2}};
  const auto replies = [&](const std::vector<AdapterInSum>& sum) {
    auto result = engine_->SampleMany(prompts, {}, {.max_tokens = 16}, sum, nullptr);
    EXPECT_OK(result.status());
    return *result;
  };
  const auto base = replies({});
  EXPECT_NE(replies({{&one, lora}}), base);
  EXPECT_EQ(replies({{&one, lora, 2.0f}}), replies({{&one, doubled}}));
  EXPECT_EQ(replies({{&one, lora}, {&two, wide}}), replies({{&two, wide}, {&one, lora}}));
  EXPECT_NE(replies({{&one, lora}, {&two, wide}}), replies({{&one, lora}}));
  EXPECT_EQ(replies({{&one, lora}, {&two, wide}, {&one, lora, -1.0f}}), replies({{&two, wide}}));
  EXPECT_EQ(ErrorReason(engine_
                            ->SampleMany(prompts, {}, {.max_tokens = 1},
                                         {{&one, lora, std::nanf("")}}, nullptr)
                            .status()),
            "ADAPTER_WEIGHT_INVALID");
}

TEST_F(SampleManyTest, ManyRepliesStopByOrder) {
  int asked = 0;
  const auto result =
      engine_->SampleMany(ManyPrompts(), {}, {.max_tokens = 64}, {}, [&] { return ++asked < 5; });
  EXPECT_EQ(ErrorReason(result.status()), "STOPPED");
  EXPECT_EQ(asked, 5) << "nothing more is generated";
  ASSERT_OK_AND_ASSIGN(const auto none, engine_->SampleMany({}, {}, {}, {}, nullptr));
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace ballast::worker
