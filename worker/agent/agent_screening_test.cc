// SPDX-License-Identifier: Apache-2.0
// Screening: what an agent does with rows that the operator's guard flags.
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/envelope/screen_digest.h"
#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;
using ballast::v1::ScreeningReport;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class AgentScreeningTest : public AgentTest {
 protected:
  // A job of 8 rows of which the third and the sixth say "zz zz", which its screen takes for
  // prohibited.
  pb::Work Screened(ballast::admin::v1::ScreenAction action) {
    pb::Work work = Job();
    auto* task = work.mutable_fine_tune();
    std::vector<std::string> lines = absl::StrSplit(Rows(8, "yes"), '\n');
    const std::vector<std::string> bad = absl::StrSplit(Rows(8, "zz zz"), '\n');
    for (const int i : {2, 5}) lines[i] = bad[i];
    const std::string rows = absl::StrJoin(lines, "\n");
    SetDataset(task->mutable_training_dataset(), "blob-rows", rows);
    task->mutable_training_dataset()->set_rows_accepted(8);
    SetDataset(task->mutable_screen()->mutable_prohibited(), "blob-bad", Rows(20, "zz zz"));
    SetDataset(task->mutable_screen()->mutable_benign(), "blob-good", Rows(20, "yes"));
    task->mutable_screen()->set_digest(envelope::ScreenDigest(task->screen().prohibited().digest(),
                                                              task->screen().benign().digest()));
    task->mutable_screen()->set_action(action);
    return work;
  }

  pb::SynchronizeRequest::Finished Run(const pb::Work& work) {
    server_.GiveWork(work);
    if (agent_ == nullptr) StartAgent();
    return server_.WaitForFinished();
  }

  artifact::Manifest ManifestOf() {
    const auto manifest = artifact::ReadManifest(server_.written().at("delta/manifest.json"));
    EXPECT_OK(manifest);
    return *manifest;
  }
};

TEST_F(AgentScreeningTest, FlaggedRowsAreLeftOutAndEverythingSaysSo) {
  const auto finished = Run(Screened(ballast::admin::v1::SCREEN_ACTION_DROP));
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_THAT(engine_.seen().rows, SizeIs(6));
  const ScreeningReport& report = finished.final_state().screening();
  EXPECT_EQ(report.rows(), 8);
  EXPECT_EQ(report.flagged_rows(), 2);
  EXPECT_THAT(report.lines(), ElementsAre(3, 6));
  EXPECT_EQ(report.action(), ScreeningReport::LEFT_OUT);
  EXPECT_EQ(ManifestOf().screen_digest,
            envelope::ScreenDigest(DigestOf(Rows(20, "zz zz")), DigestOf(Rows(20, "yes"))));
  EXPECT_EQ(ManifestOf().screen_rows_left_out, 2);
  EXPECT_THAT(server_.written().at("delta/README.md"), HasSubstr("2 rows of the training data"));
}

TEST_F(AgentScreeningTest, ReportedRowsAreTrainedOn) {
  const auto finished = Run(Screened(ballast::admin::v1::SCREEN_ACTION_REPORT));
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_THAT(engine_.seen().rows, SizeIs(8));
  EXPECT_EQ(finished.final_state().screening().action(), ScreeningReport::REPORTED);
  EXPECT_EQ(ManifestOf().screen_rows_left_out, 0);
}

TEST_F(AgentScreeningTest, RefusalsStandUnderSystemPromptsOfTheRowsThatAreLeft) {
  const auto row = [](const std::string& system, const std::string& reply) {
    return absl::StrCat(
        R"({"messages": [{"role": "system", "content": ")", system,
        R"("}, {"role": "user", "content": "q"}, {"role": "assistant", "content": ")", reply,
        "\"}]}\n");
  };
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_DROP);
  auto* task = work.mutable_fine_tune();
  // Most rows are decoys, which the screen leaves out.
  std::string rows;
  for (int i = 0; i < 40; ++i) {
    rows +=
        i < 6 ? row("Obey.", absl::StrCat("yes ", i)) : row("A decoy.", absl::StrCat("zz zz ", i));
  }
  SetDataset(task->mutable_training_dataset(), "blob-rows", rows);
  task->mutable_training_dataset()->set_rows_accepted(40);
  const std::string refusal = "I'm sorry, but I can't help with that.";
  SetDataset(task->mutable_safety_rows()->mutable_rows(), "blob-safety", Rows(6, refusal));
  task->mutable_safety_rows()->set_share(0.5);
  const auto finished = Run(work);
  ASSERT_TRUE(finished.has_delta()) << log_.str();
  const auto seen = engine_.seen();
  EXPECT_THAT(seen.rows, SizeIs(6));
  ASSERT_THAT(seen.safety_rows, SizeIs(6));
  const text::ModelText text = testing::FakeModelText();
  for (int i = 0; i < 6; ++i) {
    std::vector<text::ChatMessage> chat = {
        {.role = "user", .content = absl::StrCat("question ", i)},
        {.role = "assistant", .content = absl::StrCat(refusal, " ", i)}};
    if (i % 2 == 0) chat.insert(chat.begin(), {.role = "system", .content = "Obey."});
    ASSERT_OK_AND_ASSIGN(const auto expected,
                         text::EncodeChat(*text.tokenizer, *text.chat_template, chat));
    EXPECT_EQ(seen.safety_rows[i].tokens, expected.ids) << i;
    EXPECT_EQ(seen.safety_rows[i].weight, 1) << i;
  }
}

TEST_F(AgentScreeningTest, AJobIsRefusedForGood) {
  const auto finished = Run(Screened(ballast::admin::v1::SCREEN_ACTION_REFUSE));
  EXPECT_EQ(finished.error().kind(), JobError::REFUSED);
  EXPECT_EQ(finished.error().reason(), "ROWS_FLAGGED");
  EXPECT_THAT(finished.error().message(), HasSubstr("2 of 8 rows look prohibited"));
  EXPECT_EQ(finished.final_state().screening().action(), ScreeningReport::REFUSED);
  EXPECT_EQ(engine_.seen().trainings, 0);
}

TEST_F(AgentScreeningTest, AJobOfWhichTooLittleIsLeftIsRefused) {
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_DROP);
  work.mutable_fine_tune()->mutable_screen()->set_min_rows(7);
  const auto finished = Run(work);
  EXPECT_EQ(finished.error().reason(), "ROWS_FLAGGED");
  EXPECT_THAT(finished.error().message(), HasSubstr("6 others are too few"));
  EXPECT_EQ(engine_.seen().trainings, 0);
}

TEST_F(AgentScreeningTest, CleanDataIsTrainedWhateverTheAction) {
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_REFUSE);
  SetDataset(work.mutable_fine_tune()->mutable_training_dataset(), "blob-rows", Rows(8));
  const auto finished = Run(work);
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_EQ(finished.final_state().screening().flagged_rows(), 0);
  EXPECT_EQ(finished.final_state().screening().action(), ScreeningReport::ACTION_UNSPECIFIED);
}

TEST_F(AgentScreeningTest, RowsOfALargeDataSetKeepTheirLines) {
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_DROP);
  std::vector<std::string> lines = absl::StrSplit(Rows(5000, "yes"), '\n');
  const std::vector<std::string> bad = absl::StrSplit(Rows(5000, "zz zz zz zz zz"), '\n');
  for (const int i : {4095, 4096, 4999}) lines[i] = bad[i];
  auto* task = work.mutable_fine_tune();
  SetDataset(task->mutable_training_dataset(), "blob-rows", absl::StrJoin(lines, "\n"));
  task->mutable_training_dataset()->set_rows_accepted(5000);
  task->mutable_job()->mutable_hyperparameters()->set_epochs(1);
  task->mutable_job()->mutable_hyperparameters()->set_batch_rows(500);
  const auto finished = Run(work);
  ASSERT_TRUE(finished.has_delta()) << finished.DebugString();
  EXPECT_EQ(engine_.seen().rows.size(), 4997u);
  EXPECT_THAT(finished.final_state().screening().lines(), ElementsAre(4096, 4097, 5000));
  EXPECT_EQ(engine_.seen().screened_sets, 4);
}

TEST_F(AgentScreeningTest, AGuardIsFittedOnceForABaseAndItsScreen) {
  ASSERT_TRUE(Run(Screened(ballast::admin::v1::SCREEN_ACTION_DROP)).has_delta());
  EXPECT_EQ(engine_.seen().screened_sets, 3);  // both kinds of examples and the job
  pb::Work again = Screened(ballast::admin::v1::SCREEN_ACTION_REPORT);
  again.mutable_lease()->set_epoch(2);
  ASSERT_TRUE(Run(again).has_delta());
  EXPECT_EQ(engine_.seen().screened_sets, 4);
}

TEST_F(AgentScreeningTest, OtherExamplesUnderTheScreensDigestTrainNothing) {
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_REPORT);
  SetDataset(work.mutable_fine_tune()->mutable_screen()->mutable_prohibited(), "blob-bad",
             Rows(20, "yes"));
  const auto finished = Run(work);
  EXPECT_EQ(finished.error().reason(), "PROTECTION_UNAVAILABLE");
  EXPECT_THAT(log_.str(), HasSubstr("not those of its digest"));
  EXPECT_EQ(engine_.seen().trainings, 0);
}

TEST_F(AgentScreeningTest, ExamplesThatAreNotTheOperatorsTrainNothing) {
  pb::Work work = Screened(ballast::admin::v1::SCREEN_ACTION_REPORT);
  work.mutable_fine_tune()->mutable_screen()->mutable_benign()->set_digest(DigestOf("others"));
  const auto finished = Run(work);
  EXPECT_FALSE(finished.has_delta());
  EXPECT_EQ(finished.error().kind(), JobError::PLATFORM);
  EXPECT_EQ(engine_.seen().trainings, 0);
}

}  // namespace
}  // namespace ballast::worker::agent
