// SPDX-License-Identifier: Apache-2.0
// The store of blobs cannot be reached for a while, as an object store behind a network.
#include <memory>
#include <string>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/forwarding_blob_store.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using v1::FineTuningJob;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

class BlobsBehindANetwork : public ForwardingBlobStore {
 public:
  using ForwardingBlobStore::ForwardingBlobStore;

  absl::StatusOr<std::unique_ptr<BlobReader>> Open(const std::string& name) override {
    if (cut) return MakeError(kUnavailable, "OBJECT_STORE", "no route to " + name);
    return ForwardingBlobStore::Open(name);
  }

  bool cut = false;
};

class UnreachableBlobsTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerFixture::SetUp();
    MakeReady();
  }
  BlobStore& ServerBlobs() override {
    network_ = std::make_unique<BlobsBehindANetwork>(*blobs_);
    return *network_;
  }

  // A job that "w1" has taken.
  worker::v1::Work TakeJob() {
    EXPECT_OK(CreateJob(UploadRows(64)));
    return Idle("w1").value().work();
  }

  std::unique_ptr<BlobsBehindANetwork> network_;
};

TEST_F(UnreachableBlobsTest, ADeltaIsUnavailableAndNotSaidToBeDamaged) {
  const worker::v1::Work work = TakeJob();
  ASSERT_OK(FinishDelta("w1", work.lease()));
  const std::string delta = work.lease().resource() + "/delta";
  const std::string file = "adapter/adapter_model.safetensors";
  network_->cut = true;
  const auto read = ReadDelta(delta, file);
  EXPECT_THAT(read, StatusIs(kUnavailable, "OBJECT_STORE"));
  EXPECT_THAT(std::string(read.status().message()), Not(HasSubstr("no route")));
  network_->cut = false;
  EXPECT_EQ(ReadDelta(delta, file).value(), "the adapter");
}

TEST_F(UnreachableBlobsTest, AResultIsNotSaidToBeInvalidAndIsTakenLater) {
  const worker::v1::Work work = TakeJob();
  network_->cut = true;
  EXPECT_THAT(FinishDelta("w1", work.lease()), StatusIs(kUnavailable, "OBJECT_STORE"));
  network_->cut = false;
  EXPECT_OK(FinishDelta("w1", work.lease()));
  EXPECT_EQ(GetJob(work.fine_tune().job().name())->state(), FineTuningJob::SUCCEEDED);
}

}  // namespace
}  // namespace ballast::server::testing
