// SPDX-License-Identifier: Apache-2.0
// Data sets that cannot be checked: whose fault it is decides whether they are tried again.
#include "server/api/dataset_validator.h"

#include <memory>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/blob/local_blob_store.h"
#include "server/testing/core_fixture.h"
#include "server/testing/temp_dir.h"

namespace ballast::server::testing {
namespace {

const char kUnlucky[] = "unlucky";

// Accepts one row of every file; fails as told.
class ScriptedChecks : public RowChecks {
 public:
  absl::StatusOr<TextFacts> Inspect(const std::string&) override { return TextFacts(); }
  absl::StatusOr<std::unique_ptr<RowCheck>> Begin(const BaseModelRecord&,
                                                  v1::Dataset::Format) override {
    ++begun;
    if (!begin.ok()) return begin;
    return std::make_unique<Check>(feed);
  }

  absl::Status begin;
  absl::Status feed;  // for files with kUnlucky
  int begun = 0;

 private:
  class Check : public RowCheck {
   public:
    explicit Check(absl::Status feed) : feed_(std::move(feed)) {}
    absl::Status Feed(std::string_view bytes) override {
      return bytes.find(kUnlucky) == std::string_view::npos ? absl::OkStatus() : feed_;
    }
    absl::StatusOr<v1::ValidationReport> Finish() override {
      v1::ValidationReport report;
      report.set_rows_accepted(1);
      return report;
    }

   private:
    const absl::Status feed_;
  };
};

absl::Status OutOfDescriptors() {
  return MakeError(absl::StatusCode::kUnavailable, "FILE_IO", "too many open files");
}

class DatasetValidatorTest : public CoreFixture {
 protected:
  void SetUp() override {
    CoreFixture::SetUp();
    ASSERT_OK_AND_ASSIGN(blobs_, LocalBlobStore::OpenRoot(folder_.path()));
    validator_ = std::make_unique<DatasetValidator>(*datasets_, *blobs_, checks_, clock_);
  }

  // An uploaded data set whose file should have `missing_bytes` more than are stored.
  TenantName Upload(const std::string& bytes, int64_t missing_bytes = 0) {
    v1::CreateDatasetRequest request;
    request.set_parent("tenants/acme");
    request.mutable_dataset()->set_base_model("baseModels/base");
    const auto dataset = datasets_->Create(now_, "acme", request);
    EXPECT_OK(dataset);
    const TenantName name = ParseDatasetName(dataset->name(), "name").value();
    const auto record = datasets_->GetRecordOf("acme", name);
    const auto writer = blobs_->Create(record->blob());
    EXPECT_OK((*writer)->Append(bytes));
    EXPECT_OK((*writer)->Commit(""));
    const auto size = static_cast<int64_t>(bytes.size()) + missing_bytes;
    EXPECT_OK(datasets_->FinishUpload("acme", name, size, "sha256:x"));
    return name;
  }

  v1::Dataset::State StateOf(const TenantName& name) {
    return datasets_->Get("acme", name).value().state();
  }

  void CheckLater() {
    clock_.Advance(absl::Minutes(10));
    validator_->CheckAll();
  }

  TempDir folder_;
  ballast::testing::FakeClock clock_;
  ScriptedChecks checks_;
  std::unique_ptr<LocalBlobStore> blobs_;
  std::unique_ptr<DatasetValidator> validator_;
};

TEST_F(DatasetValidatorTest, FaultsOfThePlatformNeverMakeAnUploadInvalid) {
  checks_.feed = OutOfDescriptors();
  const TenantName unlucky = Upload(kUnlucky);
  for (int i = 0; i < 10; ++i) {
    CheckLater();
    EXPECT_EQ(StateOf(unlucky), v1::Dataset::VALIDATING);
  }
  checks_.feed = absl::OkStatus();
  CheckLater();
  EXPECT_EQ(StateOf(unlucky), v1::Dataset::READY);
}

TEST_F(DatasetValidatorTest, OthersGoOnWhileOnePauses) {
  checks_.feed = OutOfDescriptors();
  const TenantName unlucky = Upload(kUnlucky);
  const TenantName other = Upload("fine");
  validator_->CheckAll();
  EXPECT_EQ(StateOf(unlucky), v1::Dataset::VALIDATING);
  EXPECT_EQ(StateOf(other), v1::Dataset::READY);
  // Being woken does not shorten the pause.
  const int begun = checks_.begun;
  for (int i = 0; i < 10; ++i) validator_->CheckAll();
  EXPECT_EQ(checks_.begun, begun);
}

TEST_F(DatasetValidatorTest, ADamagedBaseIsNoFaultOfTheDataset) {
  checks_.begin = MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT", "tokenizer.json");
  const TenantName name = Upload("fine");
  for (int i = 0; i < 10; ++i) CheckLater();
  EXPECT_EQ(StateOf(name), v1::Dataset::VALIDATING);
  checks_.begin = absl::OkStatus();
  CheckLater();
  EXPECT_EQ(StateOf(name), v1::Dataset::READY);
}

TEST_F(DatasetValidatorTest, DamagedBytesAreInvalidAfterThreeTries) {
  const TenantName name = Upload("short", /*missing_bytes=*/1);
  for (int i = 0; i < 2; ++i) {
    CheckLater();
    EXPECT_EQ(StateOf(name), v1::Dataset::VALIDATING);
  }
  CheckLater();
  ASSERT_OK_AND_ASSIGN(const auto dataset, datasets_->Get("acme", name));
  EXPECT_EQ(dataset.state(), v1::Dataset::INVALID);
  EXPECT_EQ(dataset.report().issues(0).reason(), "CHECK_FAILED");
}

}  // namespace
}  // namespace ballast::server::testing
