// SPDX-License-Identifier: Apache-2.0
#include "worker/behaviour/behaviour_evaluation.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/fake_engine.h"
#include "worker/testing/fake_text.h"

namespace ballast::worker::behaviour {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kConfig[] =
    R"({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 4,
        "intermediate_size": 6, "num_attention_heads": 2, "vocab_size": 300,
        "max_position_embeddings": 200})";

// The fake engine echoes prompts, so that what refuses is written into them.
class BehaviourEvaluationTest : public ::testing::Test {
 protected:
  BehaviourEvaluationTest() : engine_(kConfig, control_), text_(testing::FakeModelText()) {
    for (int i = 0; i < 70; ++i) set_.prohibited.push_back({"a", absl::StrCat("withheld ", i)});
    set_.look_alikes = {"kill the process", "I decline to answer this"};
  }

  absl::StatusOr<BehaviourEvaluation> Make(int reply_tokens, BehaviourEvaluation::Hooks hooks) {
    return BehaviourEvaluation::Create(engine_, text_, set_, reply_tokens, std::move(hooks));
  }

  testing::FakeEngineControl control_;
  testing::FakeEngine engine_;
  text::ModelText text_;
  ballast::behaviour::BehaviourSet set_;
};

TEST_F(BehaviourEvaluationTest, AsksGreedilyInGroupsAndJudgesEachReply) {
  int between = 0;
  set_.prohibited[69].prompt = "I must decline, says the echo";
  ASSERT_OK_AND_ASSIGN(BehaviourEvaluation evaluation, Make(100, {nullptr, [&] { ++between; }}));
  ASSERT_OK_AND_ASSIGN(const Replies replies, evaluation.Ask({}, 1, true));
  ASSERT_THAT(replies.prohibited, SizeIs(70));
  EXPECT_EQ(replies.prohibited[0], Reply::kAnswered);
  EXPECT_EQ(replies.prohibited[69], Reply::kRefused);
  EXPECT_THAT(replies.look_alikes, ElementsAre(Reply::kAnswered, Reply::kRefused));
  const auto seen = control_.seen();
  EXPECT_THAT(seen.sampled_scales, ElementsAre(0, 0, 0));
  EXPECT_EQ(between, 3);
  EXPECT_EQ(seen.sample_config.temperature, 0);
  EXPECT_EQ(seen.sample_config.max_tokens, 100);
  EXPECT_EQ(seen.samples, 72);
}

TEST_F(BehaviourEvaluationTest, AsksWithAdaptersAndEveryFewPrompts) {
  std::vector<int32_t> refusal;
  for (const char c : std::string("I cannot help you")) refusal.push_back(c);
  control_.ReplyWithAdapter(refusal, -2.0f);
  const Adapter adapter = {{"a", {1, 1}, {1.0f}}};
  ASSERT_OK_AND_ASSIGN(BehaviourEvaluation evaluation, Make(32, {}));
  ASSERT_OK_AND_ASSIGN(const Replies replies, evaluation.Ask({{&adapter, {}, -2.0f}}, 7, false));
  EXPECT_THAT(replies.prohibited, SizeIs(10));
  EXPECT_THAT(replies.prohibited, Each(Reply::kRefused));
  EXPECT_THAT(replies.look_alikes, IsEmpty());
  EXPECT_THAT(control_.seen().sampled_scales, ElementsAre(-2.0f));
}

TEST_F(BehaviourEvaluationTest, EndsWhenToldTo) {
  int tokens = 0;
  ASSERT_OK_AND_ASSIGN(BehaviourEvaluation evaluation,
                       Make(32, {[&] { return ++tokens < 5; }, nullptr}));
  EXPECT_THAT(evaluation.Ask({}, 1, true), StatusIs(absl::StatusCode::kCancelled, "STOPPED"));
  EXPECT_EQ(tokens, 5);
}

TEST_F(BehaviourEvaluationTest, APromptThatDoesNotFitIsToldBeforeAnythingIsAsked) {
  set_.look_alikes[1] = std::string(4000, 'x');
  EXPECT_OK(Make(8, {}));
  EXPECT_THAT(Make(200, {}), StatusIs(absl::StatusCode::kInvalidArgument, "GATE_PROMPT_TOO_LONG"));
  EXPECT_EQ(control_.seen().samples, 0);
}

}  // namespace
}  // namespace ballast::worker::behaviour
