// SPDX-License-Identifier: Apache-2.0
#include "server/testing/fake_job_store.h"

#include "server/testing/job_store_suite.h"

namespace ballast::server::testing {
namespace {

INSTANTIATE_TEST_SUITE_P(Fake, JobStoreSuite,
                         ::testing::Values([] { return std::make_unique<FakeJobStore>(); }));

}  // namespace
}  // namespace ballast::server::testing
