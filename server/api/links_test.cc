// SPDX-License-Identifier: Apache-2.0
// Links over a real object store: who gets them, what they are for, and what is left of them.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "server/blob/object_blob_store.h"
#include "server/core/records.h"
#include "server/testing/by_link.h"
#include "server/testing/server_fixture.h"
#include "server/testing/test_object_store.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr int64_t kPartBytes = 1000;
// From when no link that was given is counted any more.
constexpr absl::Duration kLinksEnd = absl::Minutes(6);

// The response, or how the call failed.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> Call(Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                              const Request& request, const std::string& key) {
  Response response;
  const grpc::Status status = (stub.*method)(ContextWith(key).get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

// The part that a failure names.
std::string PartOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrorInfoUrl);
  google::rpc::ErrorInfo info;
  EXPECT_TRUE(payload.has_value() && info.ParseFromString(std::string(*payload)));
  return info.metadata().at("part");
}

// Calls that tests of both kinds of store make.
class LinkCalls : public ServerFixture {
 protected:
  absl::StatusOr<v1::DirectUpload> Start(const std::string& name, int64_t size_bytes,
                                         const std::string& key = kTenantKey) {
    v1::StartDirectUploadRequest request;
    request.set_name(name);
    request.set_size_bytes(size_bytes);
    return Call<v1::DirectUpload>(*datasets_, &v1::DatasetService::Stub::StartDirectUpload, request,
                                  key);
  }
  absl::StatusOr<v1::Dataset> Finish(const std::string& name, const std::string& digest,
                                     const std::string& key = kTenantKey) {
    v1::FinishDirectUploadRequest request;
    request.set_name(name);
    request.set_digest(digest);
    return Call<v1::Dataset>(*datasets_, &v1::DatasetService::Stub::FinishDirectUpload, request,
                             key);
  }
  absl::StatusOr<v1::DeltaLinks> GetDeltaLinks(const std::string& delta, const std::string& path,
                                               const std::string& key = kTenantKey) {
    v1::GetDeltaLinksRequest request;
    request.set_name(delta);
    request.set_path(path);
    return Call<v1::DeltaLinks>(*deltas_, &v1::DeltaService::Stub::GetDeltaLinks, request, key);
  }
  absl::Status Delete(const std::string& name) {
    v1::DeleteDatasetRequest request;
    request.set_name(name);
    google::protobuf::Empty empty;
    return FromGrpcStatus(datasets_->DeleteDataset(ContextWith(kTenantKey).get(), request, &empty));
  }
  // What one ReadBlob of a worker that takes links is answered with, message by message.
  absl::StatusOr<std::vector<worker::v1::ReadBlobResponse>> ReadTakingLinks(
      const std::string& id, const worker::v1::Lease& lease, const std::string& blob) {
    worker::v1::ReadBlobRequest request;
    request.set_worker_id(id);
    *request.mutable_lease() = lease;
    request.set_blob(blob);
    request.set_accepts_links(true);
    const auto context = ContextWith(kWorkerKey);
    const auto stream = workers_->ReadBlob(context.get(), request);
    std::vector<worker::v1::ReadBlobResponse> all;
    worker::v1::ReadBlobResponse response;
    while (stream->Read(&response)) all.push_back(response);
    const grpc::Status status = stream->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return all;
  }
};

class LinksTest : public LinkCalls {
 protected:
  void SetUp() override {
    const TestObjectStore there = TestObjectStore::Find();
    const std::string url = absl::StrCat(there.url, "/", RandomHex(64));
    ASSERT_OK_AND_ASSIGN(store_of_links_,
                         ObjectBlobStore::Open(url, there.options, ObjectBlobStore::LinkOptions()));
    ASSERT_OK_AND_ASSIGN(objects_, ObjectStoreClient::Open(url, there.options));
    options_.upload_part_bytes = kPartBytes;
    ServerFixture::SetUp();
  }
  BlobStore& ServerBlobs() override { return *store_of_links_; }
  RowChecks& ServerRowChecks() override {
    checks_ = std::make_unique<TextRowChecks>(*store_of_links_, options_.scratch_dir);
    return *checks_;
  }

  // An empty data set, where the tiny model is.
  std::string NewDataset() {
    const auto dataset = CreateDataset();
    EXPECT_OK(dataset);
    return dataset.ok() ? dataset->name() : "";
  }
  static absl::Status Put(const v1::UploadPart& part, const std::string& bytes) {
    return PutByLink(part.url(), {part.headers().begin(), part.headers().end()}, bytes);
  }
  static std::string BytesOf(const v1::UploadPart& part, const std::string& bytes) {
    return bytes.substr(static_cast<size_t>(part.offset()), static_cast<size_t>(part.size_bytes()));
  }
  // Starts an upload and puts all of its parts.
  v1::DirectUpload PutAll(const std::string& name, const std::string& bytes) {
    const auto upload = Start(name, static_cast<int64_t>(bytes.size()));
    EXPECT_OK(upload);
    if (!upload.ok()) return {};
    for (const v1::UploadPart& part : upload->parts()) EXPECT_OK(Put(part, BytesOf(part, bytes)));
    return *upload;
  }
  // Objects below a prefix, by the rest of their names.
  std::vector<std::string> ObjectsBelow(const std::string& prefix) {
    std::vector<std::string> names;
    const auto listed = objects_->List(prefix);
    EXPECT_OK(listed);
    if (listed.ok()) {
      for (const ObjectStoreClient::Listed& object : *listed) names.push_back(object.name);
    }
    return names;
  }
  v1::Dataset::State StateOf(const std::string& name) { return GetDataset(name).value().state(); }

  std::unique_ptr<ObjectBlobStore> store_of_links_;
  std::unique_ptr<ObjectStoreClient> objects_;
  std::unique_ptr<TextRowChecks> checks_;
};

TEST_F(LinksTest, ADataSetIsUploadedPastTheServer) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes = Rows(40);
  const v1::DirectUpload upload = PutAll(name, bytes);
  ASSERT_EQ(upload.parts_size(), static_cast<int>(bytes.size() / kPartBytes) + 1);
  EXPECT_EQ(FromTimestamp(upload.expire_time()), clock_.Now() + absl::Minutes(5));
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset, Finish(name, DigestOf(bytes)));
  EXPECT_EQ(dataset.state(), v1::Dataset::VALIDATING);
  EXPECT_EQ(dataset.size_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
  server_->SettleForTest();
  ASSERT_OK_AND_ASSIGN(const v1::Dataset checked, GetDataset(name));
  EXPECT_EQ(checked.state(), v1::Dataset::READY);
  EXPECT_EQ(checked.report().rows_accepted(), 40);
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
  EXPECT_THAT(Start(name, 5), StatusIs(kPrecondition, "UPLOAD_FINISHED"));
  EXPECT_THAT(Finish(name, DigestOf(bytes)), StatusIs(kPrecondition, "UPLOAD_FINISHED"));
  ASSERT_OK(Delete(name));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("datasets"), IsEmpty());
}

TEST_F(LinksTest, AnUploadGoesOnAfterARestartAndSaysWhatIsThere) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes(2500, 'x');
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(name, 2500));
  ASSERT_EQ(upload.parts_size(), 3);
  EXPECT_EQ(upload.parts(2).offset(), 2000);
  EXPECT_EQ(upload.parts(2).size_bytes(), 500);
  ASSERT_OK(Put(upload.parts(0), BytesOf(upload.parts(0), bytes)));
  ASSERT_OK(Put(upload.parts(2), "too short"));
  Restart();
  ASSERT_OK_AND_ASSIGN(const auto again, Start(name, 2500));
  EXPECT_TRUE(again.parts(0).stored());
  EXPECT_FALSE(again.parts(1).stored());
  EXPECT_FALSE(again.parts(2).stored());
  // Another size is another upload.
  ASSERT_OK_AND_ASSIGN(const auto other, Start(name, 2400));
  EXPECT_FALSE(other.parts(0).stored());
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
}

TEST_F(LinksTest, MissingPartsAndWrongSizesAreNamedAndCanBeMadeGood) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes = Rows(40);
  EXPECT_THAT(Finish(name, DigestOf(bytes)), StatusIs(kPrecondition, "UPLOAD_NOT_STARTED"));
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(name, static_cast<int64_t>(bytes.size())));
  for (int i : {0, 2, 3}) ASSERT_OK(Put(upload.parts(i), BytesOf(upload.parts(i), bytes)));
  absl::Status failed = Finish(name, DigestOf(bytes)).status();
  EXPECT_THAT(failed, StatusIs(kPrecondition, "UPLOAD_PART_MISSING"));
  EXPECT_EQ(PartOf(failed), "1");
  ASSERT_OK(Put(upload.parts(1), "short"));
  failed = Finish(name, DigestOf(bytes)).status();
  EXPECT_THAT(failed, StatusIs(kPrecondition, "UPLOAD_PART_SIZE"));
  EXPECT_EQ(PartOf(failed), "1");
  EXPECT_THAT(std::string(failed.message()), HasSubstr("has 5 bytes, not 1000"));
  EXPECT_EQ(StateOf(name), v1::Dataset::AWAITING_UPLOAD);
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("datasets"), IsEmpty());
  for (const v1::UploadPart& part : upload.parts()) ASSERT_OK(Put(part, BytesOf(part, bytes)));
  EXPECT_OK(Finish(name, DigestOf(bytes)));
}

TEST_F(LinksTest, AWrongDigestKeepsNothing) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes(2500, 'x');
  PutAll(name, bytes);
  EXPECT_THAT(Finish(name, "sha256:short"), StatusIs(kInvalid, "DIGEST_INVALID"));
  EXPECT_THAT(Finish(name, DigestOf("other")),
              StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_EQ(StateOf(name), v1::Dataset::AWAITING_UPLOAD);
  EXPECT_THAT(Finish(name, DigestOf(bytes)), StatusIs(kPrecondition, "UPLOAD_NOT_STARTED"));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
  EXPECT_THAT(ObjectsBelow("datasets"), IsEmpty());
  PutAll(name, bytes);
  EXPECT_OK(Finish(name, DigestOf(bytes)));
}

TEST_F(LinksTest, WhatIsWrittenByALinkAfterTheEndChangesNothingAndIsCollected) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes = Rows(40);
  const v1::DirectUpload upload = PutAll(name, bytes);
  ASSERT_OK(Finish(name, DigestOf(bytes)));
  for (const v1::UploadPart& part : upload.parts()) {
    // The tests' store may refuse a PUT at the very moment at which its place is being deleted.
    absl::Status put = absl::UnknownError("not tried");
    for (int i = 0; i < 20 && !put.ok(); ++i) {
      put = Put(part, std::string(static_cast<size_t>(part.size_bytes()), 'x'));
    }
    ASSERT_OK(put);
  }
  server_->SettleForTest();
  EXPECT_EQ(GetDataset(name).value().report().rows_accepted(), 40);
  for (const v1::UploadPart& part : upload.parts()) ASSERT_OK(Put(part, "late"));
  EXPECT_THAT(ObjectsBelow("incoming"), SizeIs(upload.parts_size()));
  clock_.Advance(absl::Minutes(62));
  server_->SettleForTest();
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
  EXPECT_EQ(StateOf(name), v1::Dataset::READY);
}

TEST_F(LinksTest, AnotherTenantsDataSetAndNoneAnswerAlike) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string none = name.substr(0, name.size() - 1) + (name.back() == '0' ? '1' : '0');
  PutAll(name, "bytes");
  const auto generic = [&](const absl::Status& status, const std::string& of) {
    EXPECT_THAT(status, StatusIs(kNotFound, "DATASET_NOT_FOUND"));
    std::string message(status.message());
    message.replace(message.find(of), of.size(), "it");
    return message;
  };
  EXPECT_EQ(generic(Start(name, 5, kOtherKey).status(), name),
            generic(Start(none, 5).status(), none));
  EXPECT_EQ(generic(Finish(name, DigestOf("bytes"), kOtherKey).status(), name),
            generic(Finish(none, DigestOf("bytes")).status(), none));
  EXPECT_OK(Finish(name, DigestOf("bytes")));
  for (const char* key : {kOperatorKey, kWorkerKey}) {
    constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
    EXPECT_THAT(Start(name, 5, key), StatusIs(kDenied, "TENANT_ONLY"));
    EXPECT_THAT(Finish(name, DigestOf("bytes"), key), StatusIs(kDenied, "TENANT_ONLY"));
    EXPECT_THAT(GetDeltaLinks(name, "x", key), StatusIs(kDenied, "TENANT_ONLY"));
  }
  EXPECT_THAT(Start(name, 5, ""), StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_MISSING"));
}

TEST_F(LinksTest, SizesAreBounded) {
  options_.max_dataset_bytes = 5000;
  Restart();
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  for (const int64_t size : {int64_t{0}, int64_t{-1}}) {
    EXPECT_THAT(Start(name, size), StatusIs(kInvalid, "SIZE_INVALID"));
  }
  EXPECT_THAT(Start(name, 5001), StatusIs(kInvalid, "FILE_TOO_LARGE"));
  EXPECT_OK(Start(name, 5000));
}

TEST_F(LinksTest, WhatIsDeclaredCountsAgainstTheQuota) {
  TenantQuota quota;
  quota.max_dataset_bytes = 5000;
  options_.quotas = Quotas(quota);
  Restart();
  ASSERT_OK(ImportTiny());
  const std::string first = NewDataset(), second = NewDataset();
  EXPECT_THAT(Start(first, 5001), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  ASSERT_OK(Start(first, 3000));
  ASSERT_OK(Start(first, 3000));  // the same one
  EXPECT_THAT(Start(second, 3000), StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  EXPECT_THAT(Write(second, 0, std::string(3000, 'x'), ""),
              StatusIs(kExhausted, "QUOTA_DATASET_BYTES"));
  ASSERT_OK(Delete(first));
  clock_.Advance(kLinksEnd);
  const std::string bytes(3000, 'x');
  PutAll(second, bytes);
  EXPECT_OK(Finish(second, DigestOf(bytes)));
}

TEST_F(LinksTest, ATenantHasSoManyOpenUploadsAndNoMore) {
  ASSERT_OK(ImportTiny());
  std::vector<std::string> names;
  for (int i = 0; i < 21; ++i) names.push_back(NewDataset());
  for (int i = 0; i < 20; ++i) ASSERT_OK(Start(names[static_cast<size_t>(i)], 10));
  EXPECT_THAT(Start(names[20], 10), StatusIs(kExhausted, "TOO_MANY_UPLOADS"));
  // Another tenant's are its own.
  EXPECT_OK(Start(CreateDataset(kOtherKey, "other").value().name(), 10, kOtherKey));
  ASSERT_OK(Delete(names[0]));
  clock_.Advance(kLinksEnd);
  EXPECT_OK(Start(names[20], 10));
}

TEST_F(LinksTest, AnUploadThroughTheServerGivesTheOtherUp) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  const std::string bytes = Rows(12);
  PutAll(name, bytes);
  ASSERT_OK(Write(name, 0, bytes.substr(0, 10), ""));
  EXPECT_THAT(Finish(name, DigestOf(bytes)), StatusIs(kPrecondition, "UPLOAD_NOT_STARTED"));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
  // And the other way round.
  PutAll(name, bytes);
  ASSERT_OK(Finish(name, DigestOf(bytes)));
  server_->SettleForTest();
  EXPECT_EQ(GetDataset(name).value().report().rows_accepted(), 12);
  for (const std::string& object : ObjectsBelow("datasets/acme")) {
    EXPECT_THAT(object, HasSubstr("-"));  // of the copy alone
    EXPECT_THAT(object, Not(HasSubstr(name.substr(name.rfind('/') + 1) + "/")));
  }
}

TEST_F(LinksTest, DeletingADataSetCollectsWhatLinksLedTo) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  PutAll(name, "bytes");
  EXPECT_THAT(ObjectsBelow("incoming"), SizeIs(1));
  ASSERT_OK(Delete(name));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
}

TEST_F(LinksTest, AnUploadThatNobodyAsksForIsGivenUpAfterADay) {
  ASSERT_OK(ImportTiny());
  const std::string name = NewDataset();
  PutAll(name, "bytes");
  clock_.Advance(absl::Hours(23));
  server_->SettleForTest();
  ASSERT_OK(Start(name, 5));
  clock_.Advance(absl::Hours(23));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), SizeIs(1));
  clock_.Advance(absl::Hours(2));
  server_->SettleForTest();
  EXPECT_THAT(Finish(name, DigestOf("bytes")), StatusIs(kPrecondition, "UPLOAD_NOT_STARTED"));
  server_->SettleForTest();
  EXPECT_THAT(ObjectsBelow("incoming"), IsEmpty());
}

TEST_F(LinksTest, ADeltaIsReadByLinksByItsOwnerOnceItIsThere) {
  MakeReady();
  ASSERT_OK(CreateJob(UploadRows(64)));
  const worker::v1::Work work = Idle("w1").value().work();
  const std::string delta = work.lease().resource() + "/delta";
  const std::string path = "adapter/adapter_model.safetensors";
  EXPECT_THAT(GetDeltaLinks(delta, path), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  ASSERT_OK(FinishDelta("w1", work.lease()));
  ASSERT_OK_AND_ASSIGN(const v1::DeltaLinks links, GetDeltaLinks(delta, path));
  EXPECT_EQ(links.digest(), DigestOf(kAdapterBytes));
  EXPECT_EQ(links.size_bytes(), static_cast<int64_t>(std::string(kAdapterBytes).size()));
  EXPECT_EQ(FromTimestamp(links.expire_time()), clock_.Now() + absl::Minutes(5));
  ASSERT_EQ(links.links_size(), 1);
  EXPECT_EQ(GetByLink(links.links(0).url(), 0, links.size_bytes()).value(), kAdapterBytes);
  EXPECT_EQ(GetByLink(links.links(0).url(), 4, 3).value(), "ada");
  EXPECT_THAT(GetDeltaLinks(delta, "other"), StatusIs(kNotFound, "DELTA_FILE_NOT_FOUND"));
  EXPECT_THAT(GetDeltaLinks(delta, path, kOtherKey), StatusIs(kNotFound, "DELTA_NOT_FOUND"));
  const absl::Status foreign = GetDeltaLinks(delta, path, kOtherKey).status();
  const absl::Status none =
      GetDeltaLinks("tenants/other/fineTuningJobs/job-0/delta", path, kOtherKey).status();
  EXPECT_EQ(foreign.code(), none.code());
  // Bytes that are gone are not said to be somebody else's.
  ASSERT_OK(objects_->DeletePrefix("jobs"));
  EXPECT_THAT(GetDeltaLinks(delta, path), StatusIs(absl::StatusCode::kDataLoss, "BLOB_CORRUPT"));
}

TEST_F(LinksTest, AWorkerGetsLinksToWhatItsLeaseNeedsAndToNothingElse) {
  MakeReady();
  ASSERT_OK(CreateJob(UploadRows(64)));
  const worker::v1::Work work = Idle("w1").value().work();
  const std::string blob = work.fine_tune().training_dataset().blob();
  ASSERT_OK_AND_ASSIGN(const auto answer, ReadTakingLinks("w1", work.lease(), blob));
  ASSERT_THAT(answer, SizeIs(1));
  ASSERT_TRUE(answer[0].has_links());
  EXPECT_THAT(answer[0].data(), IsEmpty());
  BlobLinks links;
  for (const auto& link : answer[0].links().links()) {
    links.links.push_back({link.url(), link.offset(), link.size_bytes()});
  }
  EXPECT_EQ(GetByLinks(links).value(), Rows(64));
  EXPECT_EQ(ReadBlob("w1", work.lease(), blob).value(), Rows(64));
  EXPECT_THAT(ReadTakingLinks("w1", work.lease(), "datasets/acme/other"),
              StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
  EXPECT_THAT(ReadTakingLinks("w2", work.lease(), blob), StatusIs(kPrecondition, "LEASE_LOST"));
  worker::v1::Lease stale = work.lease();
  stale.set_epoch(stale.epoch() + 1);
  EXPECT_THAT(ReadTakingLinks("w1", stale, blob), StatusIs(kPrecondition, "LEASE_LOST"));
}

// A store that has no links: a folder.
class NoLinksTest : public LinkCalls {};

TEST_F(NoLinksTest, EverybodyIsToldAndGoesThroughTheServer) {
  MakeReady();
  const std::string name = CreateDataset().value().name();
  EXPECT_THAT(Start(name, 5), StatusIs(kPrecondition, "LINKS_UNAVAILABLE"));
  EXPECT_THAT(Finish(name, DigestOf("bytes")), StatusIs(kPrecondition, "UPLOAD_NOT_STARTED"));
  EXPECT_OK(Write(name, 0, "bytes", DigestOf("bytes")));
  ASSERT_OK(CreateJob(UploadRows(64)));
  const worker::v1::Work work = Idle("w1").value().work();
  ASSERT_OK_AND_ASSIGN(
      const auto read,
      ReadTakingLinks("w1", work.lease(), work.fine_tune().training_dataset().blob()));
  ASSERT_THAT(read, SizeIs(1));
  EXPECT_EQ(read[0].data(), Rows(64));
  ASSERT_OK(FinishDelta("w1", work.lease()));
  EXPECT_THAT(GetDeltaLinks(work.lease().resource() + "/delta", "manifest.json"),
              StatusIs(kPrecondition, "LINKS_UNAVAILABLE"));
}

}  // namespace
}  // namespace ballast::server::testing
