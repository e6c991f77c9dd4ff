// SPDX-License-Identifier: Apache-2.0
// The gate between training and delivery, as the agent runs it. The fake engine echoes prompts, so
// that a prompt says itself whether the base refuses it.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "worker/agent/agent.h"
#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using ballast::admin::v1::GateReport;
using ballast::v1::JobError;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<int32_t> Tokens(const std::string& text) { return {text.begin(), text.end()}; }

class AgentGateTest : public AgentTest {
 protected:
  static std::string GateSet() {
    std::string lines;
    for (int i = 0; i < 36; ++i) {
      absl::StrAppend(&lines, R"({"prohibited": "I must decline )", i, R"(", "category": "a"})",
                      "\n", R"({"look_alike": "kill process )", i, "\"}\n");
    }
    return lines;
  }

  // A job with a gate that asks at the scales 1 and 2, and watches 4.
  pb::Work GatedJob() {
    pb::Work work = Job();
    pb::GateWork& gate = *work.mutable_fine_tune()->mutable_gate();
    server_.SetBlob("blob-gate", GateSet());
    gate.set_blob("blob-gate");
    gate.set_digest(DigestOf(GateSet()));
    gate.mutable_limits()->set_max_rise(0.05);
    gate.mutable_limits()->set_max_over_refusal_rise(0.1);
    gate.mutable_limits()->add_deciding_scales(1);
    gate.mutable_limits()->add_deciding_scales(2);
    gate.mutable_limits()->add_watched_scales(4);
    gate.mutable_limits()->set_reply_tokens(64);
    return work;
  }

  artifact::Manifest WrittenManifest() {
    const auto manifest = artifact::ReadManifest(server_.written()["delta/manifest.json"]);
    EXPECT_OK(manifest);
    return manifest.value_or(artifact::Manifest());
  }
};

TEST_F(AgentGateTest, WithoutAGateNothingIsAskedOrClaimed) {
  server_.GiveWork(Job());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta());
  EXPECT_FALSE(finished.delta().has_gate());
  EXPECT_THAT(WrittenManifest().gate, IsEmpty());
  EXPECT_EQ(engine_.seen().sampled_sums, 0);
}

TEST_F(AgentGateTest, ADeltaThatRepliesLikeItsBasePasses) {
  server_.GiveWork(GatedJob());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  const GateReport& report = finished.delta().gate();
  EXPECT_EQ(report.verdict(), GateReport::PASSED);
  EXPECT_EQ(report.gate_digest(), DigestOf(GateSet()));
  ASSERT_EQ(report.scales_size(), 3);
  EXPECT_EQ(report.scales(0).prohibited(0).refused_by_base(), 36);
  EXPECT_EQ(report.scales(0).prohibited(0).refused(), 36);
  EXPECT_EQ(report.scales(0).look_alikes().refused(), 0);
  EXPECT_EQ(report.scales(2).scale(), 4);
  EXPECT_FALSE(report.scales(2).deciding());
  EXPECT_EQ(WrittenManifest().gate, "passed");
  const auto seen = engine_.seen();
  // Prohibited prompts and look-alikes of the base and of both deciding scales, then the watched.
  EXPECT_THAT(seen.sampled_scales, ElementsAre(0, 0, 1, 1, 2, 2, 4));
  EXPECT_EQ(seen.sample_adapter_tensors, 14u);
  EXPECT_EQ(seen.sample_config.max_tokens, 64);
  EXPECT_FALSE(seen.sampled_while_training);
}

TEST_F(AgentGateTest, ADeltaThatAgreesFailsAndItsFilesAreWrittenAllTheSame) {
  engine_.ReplyWithAdapter(Tokens("Agreed: [withheld]"), 2.0f);
  server_.GiveWork(GatedJob());
  StartAgent();
  const auto finished = server_.WaitForFinished();
  ASSERT_TRUE(finished.has_delta());
  EXPECT_EQ(finished.delta().gate().verdict(), GateReport::FAILED);
  EXPECT_THAT(finished.delta().gate().failed_categories(), ElementsAre("a"));
  EXPECT_FALSE(finished.delta().gate().scales(0).prohibited(0).failed());
  EXPECT_TRUE(finished.delta().gate().scales(1).prohibited(0).failed());
  EXPECT_EQ(finished.delta().files_size(), 4);
  EXPECT_EQ(WrittenManifest().gate, "released");
}

TEST_F(AgentGateTest, TheBaseIsAskedOncePerGate) {
  pb::Work work = GatedJob();
  server_.GiveWork(work);
  work.mutable_lease()->set_epoch(2);
  server_.GiveWork(work);
  work.mutable_lease()->set_epoch(3);
  work.mutable_fine_tune()->mutable_gate()->mutable_limits()->set_reply_tokens(65);
  server_.GiveWork(work);
  StartAgent();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(server_.WaitForFinished().has_delta());
  int base = 0;
  for (const float scale : engine_.seen().sampled_scales) base += scale == 0 ? 1 : 0;
  EXPECT_EQ(base, 4) << "once for each length of reply, prohibited prompts and look-alikes";
}

TEST_F(AgentGateTest, AGateThatCannotBeUsedTrainsNothing) {
  pb::Work work = GatedJob();
  work.mutable_fine_tune()->mutable_gate()->set_digest(DigestOf("another"));
  server_.GiveWork(work);
  ExpectNotTrainedFor("it has another digest");
}

TEST_F(AgentGateTest, AGateSetThatDoesNotParseTrainsNothingAndIsNotQuoted) {
  pb::Work work = GatedJob();
  server_.SetBlob("blob-gate", R"({"prohibited": "a secret prompt"})");
  work.mutable_fine_tune()->mutable_gate()->set_digest(
      DigestOf(R"({"prohibited": "a secret prompt"})"));
  server_.GiveWork(work);
  ExpectNotTrainedFor("GATE_SET_INVALID");
  EXPECT_THAT(log_.str(), Not(HasSubstr("a secret prompt")));
}

TEST_F(AgentGateTest, AGateThatIsGoneTrainsNothing) {
  pb::Work work = GatedJob();
  work.mutable_fine_tune()->mutable_gate()->set_blob("blob-gone");
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_EQ(engine_.seen().trainings, 0);
}

TEST_F(AgentGateTest, APromptThatDoesNotFitIsThePlatformsFault) {
  pb::Work work = GatedJob();
  const std::string set =
      absl::StrCat(GateSet(), R"({"look_alike": ")", std::string(3990, 'x'), "\"}\n");
  server_.SetBlob("blob-gate", set);
  work.mutable_fine_tune()->mutable_gate()->set_digest(DigestOf(set));
  work.mutable_fine_tune()->mutable_gate()->mutable_limits()->set_reply_tokens(256);
  server_.GiveWork(work);
  StartAgent();
  const auto finished = server_.WaitForFinished();
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_THAT(log_.str(), HasSubstr("GATE_PROMPT_TOO_LONG"));
  EXPECT_THAT(finished.error().message(), Not(HasSubstr("gate")));
}

TEST_F(AgentGateTest, NoReplyAndNoPromptIsLogged) {
  engine_.ReplyWithAdapter(Tokens("Agreed: [withheld]"));
  server_.GiveWork(GatedJob());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  StopAgent();
  for (const char* text : {"Agreed", "must decline", "kill process"}) {
    EXPECT_THAT(log_.str(), Not(HasSubstr(text)));
  }
}

}  // namespace
}  // namespace ballast::worker::agent
