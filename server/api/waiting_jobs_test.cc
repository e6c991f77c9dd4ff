// SPDX-License-Identifier: Apache-2.0
// What the API says of jobs that wait, of which the control plane alone knows whether workers are
// there.
#include <string>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::testing::HasSubstr;
using v1::Waiting;

class WaitingJobsTest : public ServerFixture {};

TEST_F(WaitingJobsTest, WithoutWorkersAJobSaysSo) {
  MakeReady();
  const std::string dataset = UploadRows(40);
  clock_.Advance(absl::Minutes(3));  // the worker that has trained the vector is gone
  ASSERT_OK_AND_ASSIGN(const auto first, CreateJob(dataset));
  EXPECT_EQ(first.waiting().reason(), Waiting::NO_WORKERS);
  EXPECT_THAT(first.waiting().message(), HasSubstr("no worker is connected"));
  ASSERT_OK(Idle("w"));  // takes it
  ASSERT_OK_AND_ASSIGN(const auto second, CreateJob(dataset));
  EXPECT_EQ(second.waiting().reason(), Waiting::WORKERS_BUSY);
}

}  // namespace
}  // namespace ballast::server::testing
