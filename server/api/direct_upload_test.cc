// SPDX-License-Identifier: Apache-2.0
// Uploads by links over a store that only says that it has them: what counts for how long, and what
// ends an upload. Over a real store: links_test.cc.
#include "server/api/direct_upload.h"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/api/dataset_service.h"
#include "server/core/resource_name.h"
#include "server/testing/core_fixture.h"
#include "server/testing/forwarding_blob_store.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr int64_t kPartBytes = 1000;
constexpr absl::Duration kValid = absl::Minutes(5);
// From when no link that was given is counted any more.
constexpr absl::Duration kLinksEnd = absl::Minutes(6);

// A folder with links that lead nowhere: tests put what is written by them.
class LinkedBlobs : public ForwardingBlobStore {
 public:
  explicit LinkedBlobs(BlobStore& inner) : ForwardingBlobStore(inner), inner_(inner) {}

  void Put(const std::string& name, const std::string& bytes) {
    const auto writer = inner_.Create(name);
    ASSERT_OK((*writer)->Append(bytes));
    ASSERT_OK((*writer)->Commit(""));
    absl::MutexLock lock(&mutex_);
    written_.insert(name);
  }
  absl::StatusOr<BlobWriteLink> WriteLink(const std::string& name) override {
    return BlobWriteLink{
        .url = absl::StrCat("https://store/", name), .headers = {}, .valid = kValid};
  }
  absl::StatusOr<std::map<std::string, int64_t>> WrittenByLinks(
      const std::string& prefix) override {
    absl::MutexLock lock(&mutex_);
    std::map<std::string, int64_t> sizes;
    for (const std::string& name : written_) {
      if (!absl::StartsWith(name, prefix + "/")) continue;
      const auto size = inner_.Size(name);
      if (size.ok()) sizes[name.substr(prefix.size() + 1)] = *size;
    }
    return sizes;
  }
  absl::Status CopyWritten(const std::string& name, const std::vector<std::string>& parts,
                           const std::function<absl::Status()>& may_go_on) override {
    BALLAST_ASSIGN_OR_RETURN(const auto writer, inner_.Create(name));
    for (const std::string& part : parts) {
      BALLAST_RETURN_IF_ERROR(may_go_on());
      BALLAST_ASSIGN_OR_RETURN(const auto reader, inner_.Open(part));
      BALLAST_ASSIGN_OR_RETURN(const std::string bytes,
                               reader->Read(0, static_cast<size_t>(reader->size_bytes())));
      BALLAST_RETURN_IF_ERROR(writer->Append(bytes));
      ++copied;
      if (on_copy != nullptr) on_copy();
    }
    return writer->Commit("").status();
  }

  // After a part was copied.
  std::function<void()> on_copy;
  int copied = 0;

 private:
  BlobStore& inner_;
  absl::Mutex mutex_;
  std::set<std::string> written_ ABSL_GUARDED_BY(mutex_);
};

class DirectUploadTest : public ServerFixture {
 protected:
  void SetUp() override {
    options_.upload_part_bytes = kPartBytes;
    TenantQuota quota;
    quota.max_dataset_bytes = 5000;
    options_.quotas = Quotas(quota);
    ServerFixture::SetUp();
    ASSERT_OK(ImportTiny());
  }
  BlobStore& ServerBlobs() override {
    linked_ = std::make_unique<LinkedBlobs>(*blobs_);
    return *linked_;
  }

  std::string NewDataset() { return CreateDataset().value().name(); }
  absl::StatusOr<v1::DirectUpload> Start(const std::string& name, int64_t size_bytes) {
    v1::StartDirectUploadRequest request;
    request.set_name(name);
    request.set_size_bytes(size_bytes);
    v1::DirectUpload upload;
    const auto status =
        datasets_->StartDirectUpload(ContextWith(kTenantKey).get(), request, &upload);
    if (!status.ok()) return FromGrpcStatus(status);
    return upload;
  }
  absl::StatusOr<v1::Dataset> Finish(const std::string& name, const std::string& digest) {
    v1::Dataset dataset;
    const auto status = datasets_->FinishDirectUpload(ContextWith(kTenantKey).get(),
                                                      FinishRequest(name, digest), &dataset);
    if (!status.ok()) return FromGrpcStatus(status);
    return dataset;
  }
  static v1::FinishDirectUploadRequest FinishRequest(const std::string& name,
                                                     const std::string& digest) {
    v1::FinishDirectUploadRequest request;
    request.set_name(name);
    request.set_digest(digest);
    return request;
  }
  // Starts an upload and writes all of its parts.
  void PutAll(const std::string& name, const std::string& bytes) {
    ASSERT_OK_AND_ASSIGN(const auto upload, Start(name, static_cast<int64_t>(bytes.size())));
    for (const v1::UploadPart& part : upload.parts()) {
      linked_->Put(
          part.url().substr(std::string("https://store/").size()),
          bytes.substr(static_cast<size_t>(part.offset()), static_cast<size_t>(part.size_bytes())));
    }
  }
  absl::Status Delete(const std::string& name) {
    v1::DeleteDatasetRequest request;
    request.set_name(name);
    google::protobuf::Empty empty;
    return FromGrpcStatus(datasets_->DeleteDataset(ContextWith(kTenantKey).get(), request, &empty));
  }

  std::unique_ptr<LinkedBlobs> linked_;
};

TEST_F(DirectUploadTest, AServerThatStopsEndsACopyBetweenItsParts) {
  const std::string name = NewDataset();
  const std::string bytes(2500, 'x');
  PutAll(name, bytes);
  CountingIds ids;
  SilentListener listener;
  DatasetCatalog catalog(*store_, ids, listener, options_.quotas);
  UnnamedBlobs unnamed;
  UploadsInProgress uploads;
  const DirectUploads::Parts parts{catalog, *linked_, unnamed, uploads, 5000, kPartBytes};
  const auto request = FinishRequest(name, DigestOf(bytes));
  DirectUploads stopping(parts);
  linked_->on_copy = [&] { stopping.Drain(); };
  EXPECT_THAT(stopping.Finish("acme", request), StatusIs(kUnavailable, "SERVER_STOPPING"));
  EXPECT_EQ(linked_->copied, 1);
  // What has waited for a thread does not even begin.
  EXPECT_THAT(stopping.Finish("acme", request), StatusIs(kUnavailable, "SERVER_STOPPING"));
  EXPECT_EQ(linked_->copied, 1);
  linked_->on_copy = nullptr;
  EXPECT_OK(Finish(name, DigestOf(bytes)));
}

TEST_F(DirectUploadTest, AnUploadThatIsBeingFinishedIsNotGivenUp) {
  const std::string name = NewDataset();
  const std::string bytes = Rows(20);
  PutAll(name, bytes);
  linked_->on_copy = [&] {
    if (linked_->copied > 1) return;
    clock_.Advance(absl::Hours(25));
    server_->SettleForTest();
  };
  EXPECT_OK(Finish(name, DigestOf(bytes)));
  EXPECT_GT(linked_->copied, 1);
}

TEST_F(DirectUploadTest, AnUploadOfAnotherSizeIsBesideTheFirstUntilItsLinksHaveEnded) {
  const std::string name = NewDataset();
  ASSERT_OK(Start(name, 3000));
  const absl::Status refused = Start(name, 2001).status();
  EXPECT_THAT(refused, StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  // It says until when.
  EXPECT_THAT(std::string(refused.message()), HasSubstr("2023-11-14T22:19:20Z"));
  ASSERT_OK(Start(name, 3000));  // the first is as it was
  ASSERT_OK(Start(name, 2000));
  EXPECT_THAT(Start(NewDataset(), 1), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  clock_.Advance(kLinksEnd);
  EXPECT_OK(Start(NewDataset(), 3000));
}

TEST_F(DirectUploadTest, AnUploadThatWasGivenUpIsOneOfTwenty) {
  const std::string name = NewDataset();
  for (int size = 1; size <= 20; ++size) ASSERT_OK(Start(name, size));
  EXPECT_THAT(Start(name, 21), StatusIs(kExhausted, "TOO_MANY_UPLOADS"));
  EXPECT_OK(Start(name, 20));
  // Nor is there room for others.
  EXPECT_THAT(Start(NewDataset(), 1), StatusIs(kExhausted, "TOO_MANY_UPLOADS"));
  clock_.Advance(kLinksEnd);
  EXPECT_OK(Start(name, 21));
}

TEST_F(DirectUploadTest, DeletingTheDataSetLeavesItsLinksToCount) {
  const std::string open = NewDataset(), next = NewDataset();
  ASSERT_OK(Start(open, 3000));
  ASSERT_OK(Delete(open));
  EXPECT_THAT(Start(next, 2001), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  EXPECT_THAT(Write(next, 0, std::string(2001, 'x'), ""),
              StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  Restart();
  EXPECT_THAT(Start(next, 2001), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  clock_.Advance(kLinksEnd);
  ASSERT_OK(Start(next, 2001));
}

TEST_F(DirectUploadTest, AFinishedUploadCountsOnceUntilItsDataSetIsDeletedBeforeItsLinksEnd) {
  const std::string name = NewDataset();
  const std::string bytes(3000, 'x');
  PutAll(name, bytes);
  ASSERT_OK(Finish(name, DigestOf(bytes)));
  const std::string next = NewDataset();
  ASSERT_OK(Start(next, 2000));
  server_->SettleForTest();
  ASSERT_OK(Delete(name));
  EXPECT_THAT(Start(NewDataset(), 1), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  clock_.Advance(kLinksEnd);
  EXPECT_OK(Start(NewDataset(), 3000));
}

TEST_F(DirectUploadTest, AWrongDigestLeavesTheLinksToCount) {
  const std::string name = NewDataset();
  PutAll(name, std::string(3000, 'x'));
  EXPECT_THAT(Finish(name, DigestOf("other")),
              StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_THAT(Start(NewDataset(), 2001), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  EXPECT_OK(Start(name, 2000));
}

TEST_F(DirectUploadTest, WhoGoesOnThroughTheServerDoesNotWaitForLinksThatDidNotWork) {
  const std::string name = NewDataset();
  const std::string bytes(3000, 'x');
  ASSERT_OK(Start(name, 3000));
  ASSERT_OK(Write(name, 0, bytes, DigestOf(bytes)));
  // Of both the larger counts: a short file does not hide what links can write.
  const std::string second = NewDataset();
  ASSERT_OK(Start(second, 2000));
  ASSERT_OK(Write(second, 0, "x", DigestOf("x")));
  EXPECT_THAT(Start(NewDataset(), 1), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  clock_.Advance(kLinksEnd);
  EXPECT_OK(Start(NewDataset(), 1999));
}

// On PostgreSQL, where transactions run beside each other.
TEST_F(DirectUploadTest, OfTwoThatDoNotBothFitOneIsRefused) {
  constexpr int kRounds = 15;
  for (int round = 0; round < kRounds; ++round) {
    const std::string names[] = {NewDataset(), NewDataset()};
    absl::Status ends[2];
    auto* both = new absl::Barrier(2);
    const auto start = [&](int which) {
      if (both->Block()) delete both;
      ends[which] = Start(names[which], 3000).status();
    };
    std::thread other(start, 1);
    start(0);
    other.join();
    EXPECT_NE(ends[0].ok(), ends[1].ok()) << round << ": " << ends[0] << ", " << ends[1];
    for (const std::string& name : names) ASSERT_OK(Delete(name));
    clock_.Advance(kLinksEnd);
  }
}

}  // namespace
}  // namespace ballast::server::testing
