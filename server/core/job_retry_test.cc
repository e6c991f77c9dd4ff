// SPDX-License-Identifier: Apache-2.0
// Work that failed without a fault of its owner's: when it is tried again, and when no more.
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/control_plane.h"
#include "server/core/transitions.h"
#include "server/testing/core_fixture.h"

namespace ballast::server {
namespace {

using ::ballast::server::testing::CoreFixture;
using ::testing::HasSubstr;
using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

class JobRetryTest : public CoreFixture {
 protected:
  void Fail(const std::string& worker, const worker::v1::Lease& lease) {
    SynchronizeRequest request = Finished(worker, lease);
    request.mutable_finished()->mutable_error()->set_kind(v1::JobError::PLATFORM);
    request.mutable_finished()->mutable_error()->set_reason("OUT_OF_MEMORY");
    request.set_draining(true);
    Sync(request);
  }
};

TEST_F(JobRetryTest, RestsLongerAfterEachError) {
  EXPECT_EQ(RetryAfter(1, absl::Seconds(5)), absl::Seconds(5));
  EXPECT_EQ(RetryAfter(2, absl::Seconds(5)), absl::Seconds(10));
  EXPECT_EQ(RetryAfter(3, absl::Seconds(5)), absl::Seconds(20));
  EXPECT_EQ(RetryAfter(1000, absl::Seconds(5)), absl::Minutes(5));
}

TEST_F(JobRetryTest, AJobIsTriedAgainAfterItsRest) {
  const std::string name = CreateJob();
  Fail("w1", Idle("w1").work().lease());
  const v1::JobEvent said = Events(name).end()[-2];
  EXPECT_THAT(said.message(), HasSubstr("OUT_OF_MEMORY; the job is tried again in 5s"));
  now_ += absl::Seconds(4);
  EXPECT_TRUE(Idle("w1").has_idle());
  now_ += absl::Seconds(1);
  const auto lease = Idle("w1").work().lease();
  EXPECT_EQ(lease.epoch(), 2);
  Fail("w1", lease);
  now_ += absl::Seconds(9);
  EXPECT_TRUE(Idle("w1").has_idle());
  now_ += absl::Seconds(1);
  EXPECT_TRUE(Idle("w1").has_work());
}

TEST_F(JobRetryTest, OthersDoNotWaitForIt) {
  CreateJob();
  Fail("w1", Idle("w1").work().lease());
  const std::string other = CreateJob();
  EXPECT_EQ(Idle("w1").work().lease().resource(), other);
}

TEST_F(JobRetryTest, ALostWorkerIsReplacedAtOnce) {
  CreateJob();
  Idle("w1");
  now_ += absl::Seconds(31);
  EXPECT_TRUE(Idle("w2").has_work());
}

TEST_F(JobRetryTest, AVectorRestsToo) {
  const std::string vector = CreateVector("vec-7");
  Fail("w1", Idle("w1").work().lease());
  EXPECT_TRUE(Idle("w1").has_idle());
  now_ += absl::Seconds(5);
  EXPECT_EQ(Idle("w1").work().lease().resource(), vector);
}

TEST_F(JobRetryTest, AJobThatStopsItsWorkersEndsWithThatReason) {
  const std::string name = CreateJob();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_TRUE(Idle(absl::StrCat("w", attempt)).has_work());
    now_ += absl::Seconds(31);
    ASSERT_OK(plane_->Enter(now_));
  }
  EXPECT_EQ(Job(name).state(), FineTuningJob::FAILED);
  EXPECT_EQ(Job(name).error().kind(), v1::JobError::PLATFORM);
  EXPECT_EQ(Job(name).error().reason(), "WORKERS_LOST");
  EXPECT_THAT(Job(name).error().message(), HasSubstr("each of the 3 workers"));
}

TEST_F(JobRetryTest, OneErrorAmongLostWorkersIsNoSuchReason) {
  const std::string name = CreateJob();
  Fail("w1", Idle("w1").work().lease());
  now_ += absl::Seconds(5);
  for (int attempt = 2; attempt <= 3; ++attempt) {
    ASSERT_TRUE(Idle(absl::StrCat("w", attempt)).has_work());
    now_ += absl::Seconds(31);
    ASSERT_OK(plane_->Enter(now_));
  }
  EXPECT_EQ(Job(name).error().reason(), "ATTEMPTS_EXHAUSTED");
}

}  // namespace
}  // namespace ballast::server
