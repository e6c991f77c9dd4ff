// SPDX-License-Identifier: Apache-2.0
// What every JobStore does. A test program instantiates the suite for each implementation:
//   INSTANTIATE_TEST_SUITE_P(Fake, JobStoreSuite, ::testing::Values(MakeFake));
#ifndef BALLAST_SERVER_TESTING_JOB_STORE_SUITE_H_
#define BALLAST_SERVER_TESTING_JOB_STORE_SUITE_H_

#include <functional>
#include <memory>

#include "gtest/gtest.h"
#include "server/core/job_store.h"

namespace ballast::server::testing {

// Makes an empty store.
using JobStoreFactory = std::function<std::unique_ptr<JobStore>()>;

class JobStoreSuite : public ::testing::TestWithParam<JobStoreFactory> {
 protected:
  void SetUp() override { store_ = GetParam()(); }
  std::unique_ptr<JobStore> store_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_JOB_STORE_SUITE_H_
