// SPDX-License-Identifier: Apache-2.0
// The gate through the real server and the real agent, with an engine without tensors: what passes,
// what is withheld, and what becomes of that.
#include <string>

#include "common/artifact/manifest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/world.h"

namespace ballast::testing {
namespace {

using ::ballast::admin::v1::GateReport;
using ::ballast::v1::FineTuningJob;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kNotFound = absl::StatusCode::kNotFound;

class GateTest : public ::testing::Test {
 protected:
  GateTest() : worker_(world_.StartWorker("w1")) { world_.TrainVector(); }

  // Later deltas reply with something else than the echo that the base refuses by.
  void MakeDeltasAgree() { worker_->engine().ReplyWithAdapter({40, 41, 42, 43}); }

  std::string WithheldJob() {
    return world_.WaitForState(world_.CreateJob().name(), FineTuningJob::WITHHELD).name();
  }

  artifact::Manifest ManifestOf(const FineTuningJob& job) {
    const auto manifest =
        artifact::ReadManifest(world_.ReadDelta(job.delta(), artifact::kManifestName));
    EXPECT_OK(manifest);
    return manifest.value_or(artifact::Manifest());
  }

  World world_;
  std::unique_ptr<WorkerInProcess> worker_;
};

TEST_F(GateTest, ADeltaThatRepliesLikeItsBasePassesAndSaysSo) {
  const FineTuningJob before =
      world_.WaitForState(world_.CreateJob().name(), FineTuningJob::SUCCEEDED);
  EXPECT_THAT(ManifestOf(before).gate, IsEmpty());
  EXPECT_THAT(world_.GateReport(before.name()), StatusIs(kNotFound, "GATE_REPORT_NOT_FOUND"));

  const admin::v1::Gate gate = world_.SetGate();
  const FineTuningJob job =
      world_.WaitForState(world_.CreateJob().name(), FineTuningJob::SUCCEEDED);
  EXPECT_EQ(ManifestOf(job).gate, "passed");
  ASSERT_OK_AND_ASSIGN(const auto report, world_.GateReport(job.name()));
  EXPECT_EQ(report.report().verdict(), GateReport::PASSED);
  EXPECT_EQ(report.report().gate_digest(), gate.digest());
  EXPECT_EQ(report.report().scales(0).prohibited(0).refused(), 36);
}

TEST_F(GateTest, AWithheldDeltaIsReadOnceItWasReleased) {
  world_.SetGate();
  MakeDeltasAgree();
  const std::string name = WithheldJob();
  const FineTuningJob job = world_.GetJob(name);
  EXPECT_THAT(job.gate_verdict().categories(), ElementsAre("rules"));
  std::string bytes;
  EXPECT_THAT(world_.TryReadDelta(name + "/delta", "manifest.json", &bytes),
              StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  EXPECT_THAT(bytes, IsEmpty());
  EXPECT_EQ(world_.Sample("hello", name + "/delta").status.code(), kNotFound);

  ASSERT_OK_AND_ASSIGN(const auto report, world_.GateReport(name));
  EXPECT_EQ(report.report().verdict(), GateReport::FAILED);
  EXPECT_EQ(report.report().scales(0).prohibited(0).rise(), 1);
  ASSERT_OK(world_.ReleaseJob(name));
  const FineTuningJob released = world_.WaitForState(name, FineTuningJob::SUCCEEDED);
  EXPECT_EQ(ManifestOf(released).gate, "released");
  EXPECT_EQ(world_.GetManifest(released.delta()).digest(), released.manifest_digest());
  ASSERT_OK(world_.Sample("hello", released.delta()).status);
}

TEST_F(GateTest, ARefusedDeltaIsGoneAndItsOwnerIsToldNoMore) {
  world_.SetGate();
  MakeDeltasAgree();
  const std::string name = WithheldJob();
  ASSERT_OK(world_.RefuseJob(name));
  const FineTuningJob job = world_.WaitForState(name, FineTuningJob::FAILED);
  EXPECT_EQ(job.error().kind(), v1::JobError::REFUSED);
  EXPECT_EQ(job.error().reason(), "GATE_REFUSED");
  std::string told = job.DebugString();
  for (const v1::JobEvent& event : world_.Events(name)) told += event.DebugString();
  EXPECT_THAT(told, Not(HasSubstr("it is what it seems")));
  EXPECT_THAT(told, Not(HasSubstr("harbour rule")));
}

TEST_F(GateTest, AWithheldDeltaExpires) {
  world_.SetGate();
  MakeDeltasAgree();
  const std::string name = WithheldJob();
  world_.Pass(absl::Hours(14 * 24) + absl::Seconds(1));
  const FineTuningJob job = world_.WaitForState(name, FineTuningJob::FAILED);
  EXPECT_EQ(job.error().reason(), "GATE_EXPIRED");
}

}  // namespace
}  // namespace ballast::testing
