// SPDX-License-Identifier: Apache-2.0
#include "server/api/read_links.h"

#include <memory>
#include <string>

#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "server/testing/forwarding_blob_store.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;

// A store that has links: so many to each blob, of which the first one leads to all of it.
class ManyLinks : public ForwardingBlobStore {
 public:
  using ForwardingBlobStore::ForwardingBlobStore;
  absl::StatusOr<BlobLinks> ReadLinks(const std::string& name) override {
    BALLAST_ASSIGN_OR_RETURN(const int64_t size, Size(name));
    BlobLinks all;
    all.valid = absl::Minutes(5);
    // As long as those that are signed with a session of a role.
    all.links.resize(count, BlobLink{std::string(3 << 10, 'u'), size, 0});
    all.links[0] = {"https://store.example.com/it", 0, size};
    return all;
  }
  size_t count = 1;
};

class ReadLinksTest : public ServerFixture {
 protected:
  BlobStore& ServerBlobs() override {
    links_ = std::make_unique<ManyLinks>(*blobs_);
    return *links_;
  }
  absl::StatusOr<v1::DeltaLinks> GetDeltaLinks(const std::string& delta) {
    v1::GetDeltaLinksRequest request;
    request.set_name(delta);
    request.set_path("manifest.json");
    v1::DeltaLinks links;
    const grpc::Status status =
        deltas_->GetDeltaLinks(ContextWith(kTenantKey).get(), request, &links);
    if (!status.ok()) return FromGrpcStatus(status);
    return links;
  }
  // The first response to a worker that takes links.
  absl::StatusOr<worker::v1::ReadBlobResponse> ReadTakingLinks(const worker::v1::Work& work) {
    worker::v1::ReadBlobRequest request;
    request.set_worker_id("w1");
    *request.mutable_lease() = work.lease();
    request.set_blob(work.fine_tune().training_dataset().blob());
    request.set_accepts_links(true);
    const auto context = ContextWith(kWorkerKey);
    const auto stream = workers_->ReadBlob(context.get(), request);
    worker::v1::ReadBlobResponse first, more;
    stream->Read(&first);
    while (stream->Read(&more)) {
    }
    const grpc::Status status = stream->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return first;
  }

  std::unique_ptr<ManyLinks> links_;
};

TEST_F(ReadLinksTest, MoreLinksThanAMessageHoldsAreBytesInstead) {
  MakeReady();
  ASSERT_OK(CreateJob(UploadRows(64)));
  const worker::v1::Work work = Idle("w1").value().work();
  links_->count = 1000;
  EXPECT_EQ(ReadTakingLinks(work)->links().links_size(), 1000);
  links_->count = 1001;
  ASSERT_OK_AND_ASSIGN(const auto read, ReadTakingLinks(work));
  EXPECT_FALSE(read.has_links());
  EXPECT_EQ(read.data(), Rows(64));
  ASSERT_OK(FinishDelta("w1", work.lease()));
  const std::string delta = work.lease().resource() + "/delta";
  EXPECT_THAT(GetDeltaLinks(delta),
              StatusIs(absl::StatusCode::kFailedPrecondition, "LINKS_UNAVAILABLE"));
  EXPECT_EQ(ReadDelta(delta, "manifest.json").value(), kManifestBytes);
  links_->count = 1000;
  EXPECT_EQ(GetDeltaLinks(delta)->links_size(), 1000);
}

}  // namespace
}  // namespace ballast::server::testing
