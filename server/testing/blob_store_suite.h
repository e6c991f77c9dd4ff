// SPDX-License-Identifier: Apache-2.0
// What every BlobStore does; instantiated for each implementation as job_store_suite.h is.
#ifndef BALLAST_SERVER_TESTING_BLOB_STORE_SUITE_H_
#define BALLAST_SERVER_TESTING_BLOB_STORE_SUITE_H_

#include <functional>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "server/core/blob_store.h"
#include "server/testing/temp_dir.h"

namespace ballast::server::testing {

// Makes a store whose blobs are below `folder`; a second one over the same folder sees the same
// blobs.
using BlobStoreFactory = std::function<std::unique_ptr<BlobStore>(const std::string& folder)>;

class BlobStoreSuite : public ::testing::TestWithParam<BlobStoreFactory> {
 protected:
  void SetUp() override { store_ = GetParam()(folder_.path()); }

  // Writes and commits a blob.
  void Put(const std::string& name, const std::string& bytes);
  // The bytes of a blob.
  std::string Get(const std::string& name);

  TempDir folder_;
  std::unique_ptr<BlobStore> store_;
};

// What every store does that has links.
class BlobLinkSuite : public BlobStoreSuite {};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_BLOB_STORE_SUITE_H_
