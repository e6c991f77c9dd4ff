// SPDX-License-Identifier: Apache-2.0
// Uploads by links in the catalog: at several servers, and what is garbage when.
#include <memory>
#include <string>

#include "common/base/digest.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/dataset_catalog.h"
#include "server/core/live_servers.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::Not;

constexpr auto kAborted = absl::StatusCode::kAborted;
constexpr int64_t kPartBytes = 100;
constexpr absl::Duration kValid = absl::Minutes(5);

class DatasetUploadsTest : public CoreFixture {
 protected:
  void SetUp() override {
    store_.ShareForTest();
    CoreFixture::SetUp();
    store_.BeServerForTest("one");
    ASSERT_OK(one_.Join(now_));
    store_.BeServerForTest("two");
    ASSERT_OK(two_.Join(now_));
    v1::CreateDatasetRequest request;
    request.set_parent("tenants/acme");
    request.mutable_dataset()->set_base_model("baseModels/base");
    ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset, datasets_->Create(now_, "acme", request));
    name_ = {"acme", dataset.name().substr(dataset.name().rfind('/') + 1)};
    store_.BeServerForTest("one");
  }

  absl::StatusOr<DirectUploadRecord> Start(int64_t size_bytes) {
    return datasets_->StartDirectUpload(now_, kValid, "acme", name_, size_bytes, kPartBytes);
  }
  bool IsOpen() { return datasets_->GetRecordOf("acme", name_).value().has_direct_upload(); }

  LiveServers one_{store_, "s3://bucket", "1"}, two_{store_, "s3://bucket", "1"};
  TenantName name_;
};

TEST_F(DatasetUploadsTest, IsBegunAtOneServerAndFinishedAtAnother) {
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(250));
  EXPECT_EQ(upload.part_bytes(), kPartBytes);
  store_.BeServerForTest("two");
  ASSERT_OK_AND_ASSIGN(const auto same, Start(250));
  EXPECT_EQ(same.incoming(), upload.incoming());
  const std::string blob = datasets_->NewBlobOf(name_);
  ASSERT_OK(datasets_->BeginFinish("acme", name_, blob));
  EXPECT_THAT(Garbage(), Contains(blob));
  ASSERT_OK_AND_ASSIGN(const auto before, datasets_->GetRecordOf("acme", name_));
  ASSERT_OK(datasets_->FinishUpload("acme", name_, 250, DigestOf("x"), blob));
  ASSERT_OK_AND_ASSIGN(const auto record, datasets_->GetRecordOf("acme", name_));
  EXPECT_EQ(record.blob(), blob);
  EXPECT_FALSE(record.has_direct_upload());
  EXPECT_EQ(record.dataset().state(), v1::Dataset::VALIDATING);
  EXPECT_THAT(Garbage(), Not(Contains(blob)));
  EXPECT_THAT(Garbage(), Contains(upload.incoming()));
  EXPECT_THAT(Garbage(), Contains(before.blob()));
}

TEST_F(DatasetUploadsTest, WhileOneServerFinishesNoOtherWrites) {
  ASSERT_OK(Start(250));
  ASSERT_OK(datasets_->BeginFinish("acme", name_, datasets_->NewBlobOf(name_)));
  store_.BeServerForTest("two");
  EXPECT_THAT(Start(250), StatusIs(kAborted, "UPLOAD_IN_PROGRESS"));
  EXPECT_THAT(datasets_->BeginUpload("acme", name_), StatusIs(kAborted, "UPLOAD_IN_PROGRESS"));
  EXPECT_THAT(datasets_->BeginFinish("acme", name_, datasets_->NewBlobOf(name_)),
              StatusIs(kAborted, "UPLOAD_IN_PROGRESS"));
  EXPECT_THAT(datasets_->Delete("acme", name_, ""), StatusIs(kAborted, "UPLOAD_IN_PROGRESS"));
  store_.BeServerForTest("one");
  ASSERT_OK(datasets_->EndUpload(name_));
  store_.BeServerForTest("two");
  EXPECT_OK(Start(250));
}

TEST_F(DatasetUploadsTest, AServerThatWasTakenForGoneFinishesNothing) {
  ASSERT_OK(Start(250));
  const std::string first = datasets_->NewBlobOf(name_);
  ASSERT_OK(datasets_->BeginFinish("acme", name_, first));
  ASSERT_OK(one_.Leave());
  store_.BeServerForTest("two");
  const std::string second = datasets_->NewBlobOf(name_);
  EXPECT_NE(first, second);
  ASSERT_OK(datasets_->BeginFinish("acme", name_, second));
  store_.BeServerForTest("one");
  EXPECT_THAT(datasets_->FinishUpload("acme", name_, 250, DigestOf("x"), first),
              StatusIs(kAborted, "UPLOAD_IN_PROGRESS"));
  store_.BeServerForTest("two");
  ASSERT_OK(datasets_->FinishUpload("acme", name_, 250, DigestOf("y"), second));
  EXPECT_THAT(Garbage(), Contains(first));
  EXPECT_EQ(datasets_->GetRecordOf("acme", name_).value().blob(), second);
}

TEST_F(DatasetUploadsTest, LargeFilesHaveLargeParts) {
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(1'000'001));
  EXPECT_EQ(upload.part_bytes(), 1001);
}

TEST_F(DatasetUploadsTest, WhatEndedIsCollectedOnceMoreWhenItsLinksHave) {
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(250));
  ASSERT_OK(datasets_->GiveUpDirectUpload(name_, upload.incoming()));
  ASSERT_OK(store_.Update([&](Transaction& tx) { return tx.RemoveGarbage(upload.incoming()); }));
  // It is written down: a server that has begun since then knows of it.
  datasets_ = std::make_unique<DatasetCatalog>(store_, ids_, listener_, quotas_);
  ASSERT_OK(datasets_->SweepDirectUploads(now_ + kValid));
  EXPECT_THAT(Garbage(), Not(Contains(upload.incoming())));
  ASSERT_OK(datasets_->SweepDirectUploads(now_ + kValid + absl::Minutes(5)));
  EXPECT_THAT(Garbage(), Contains(upload.incoming()));
  ASSERT_OK(store_.Update([&](Transaction& tx) { return tx.RemoveGarbage(upload.incoming()); }));
  ASSERT_OK(datasets_->SweepDirectUploads(now_ + kValid + absl::Minutes(10)));
  EXPECT_THAT(Garbage(), Not(Contains(upload.incoming())));
  // Of another upload than the one that it has by now it gives nothing up.
  ASSERT_OK_AND_ASSIGN(const auto next, Start(250));
  ASSERT_OK(datasets_->GiveUpDirectUpload(name_, upload.incoming()));
  EXPECT_TRUE(datasets_->GetRecordOf("acme", name_).value().has_direct_upload());
  EXPECT_NE(next.incoming(), upload.incoming());
}

TEST_F(DatasetUploadsTest, WhatNobodyAskedForForADayIsGivenUpUnlessAServerIsAtIt) {
  ASSERT_OK(Start(250));
  ASSERT_OK(datasets_->BeginFinish("acme", name_, datasets_->NewBlobOf(name_)));
  store_.BeServerForTest("two");
  const absl::Time next_day = now_ + absl::Hours(25);
  ASSERT_OK_AND_ASSIGN(const auto forgotten, datasets_->SweepDirectUploads(next_day));
  ASSERT_EQ(forgotten.size(), 1u);
  ASSERT_OK(datasets_->GiveUpForgotten(next_day, forgotten[0]));
  EXPECT_TRUE(IsOpen());
  store_.BeServerForTest("one");
  ASSERT_OK(datasets_->EndUpload(name_));
  store_.BeServerForTest("two");
  ASSERT_OK(datasets_->GiveUpForgotten(next_day, name_));
  EXPECT_FALSE(IsOpen());
}

TEST_F(DatasetUploadsTest, WhoAsksAfterTheLookKeepsTheUpload) {
  ASSERT_OK(Start(250));
  now_ += absl::Hours(25);
  ASSERT_OK_AND_ASSIGN(const auto forgotten, datasets_->SweepDirectUploads(now_));
  ASSERT_EQ(forgotten.size(), 1u);
  ASSERT_OK(Start(250));
  ASSERT_OK(datasets_->GiveUpForgotten(now_, forgotten[0]));
  EXPECT_TRUE(IsOpen());
}

TEST_F(DatasetUploadsTest, LinksThatWereValidForLongerCountForAsLong) {
  ASSERT_OK(datasets_->StartDirectUpload(now_, absl::Hours(1), "acme", name_, 250, kPartBytes));
  ASSERT_OK_AND_ASSIGN(const auto upload, Start(250));
  ASSERT_OK(datasets_->Delete("acme", name_, ""));
  ASSERT_OK(store_.Update([&](Transaction& tx) { return tx.RemoveGarbage(upload.incoming()); }));
  ASSERT_OK(datasets_->SweepDirectUploads(now_ + absl::Minutes(59)));
  EXPECT_THAT(Garbage(), Not(Contains(upload.incoming())));
  ASSERT_OK(datasets_->SweepDirectUploads(now_ + absl::Minutes(66)));
  EXPECT_THAT(Garbage(), Contains(upload.incoming()));
}

}  // namespace
}  // namespace ballast::server::testing
