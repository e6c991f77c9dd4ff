// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/manifest.h"

#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Manifest ExampleManifest() {
  Manifest manifest;
  manifest.files = {{"b.txt", 3, DigestOf("bbb")}, {"adapter/a.bin", 2, DigestOf("aa")}};
  manifest.job = "tenants/t/fineTuningJobs/j";
  manifest.attempt = 2;
  manifest.base_model = "baseModels/m";
  manifest.base_digest = DigestOf("base");
  manifest.training_dataset_digest = DigestOf("data");
  manifest.config_digest = DigestOf("config");
  manifest.tokenizer_digest = DigestOf("tokenizer");
  manifest.template_digest = DigestOf("template");
  manifest.code_version = "0.1.0";
  manifest.create_time = "2026-01-02T03:04:05Z";
  manifest.protection_handle = "abcdef";
  manifest.certified = true;
  manifest.safety_rows_digest = DigestOf("safety");
  manifest.safety_row_share = 0.25;
  manifest.screen_digest = DigestOf("screen");
  manifest.screen_rows_left_out = 7;
  return manifest;
}

class VerifyFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/verify_folder_", RandomHex(64));
    ASSERT_OK(MakeDirectories(folder_ + "/adapter"));
    ASSERT_OK(WriteFileAtomically(folder_ + "/adapter/a.bin", "aa"));
    ASSERT_OK(WriteFileAtomically(folder_ + "/b.txt", "bbb"));
    auto bytes = WriteManifest(ExampleManifest());
    ASSERT_OK(bytes);
    ASSERT_OK(WriteFileAtomically(folder_ + "/manifest.json", *bytes));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // "REASON path" of each problem.
  std::vector<std::string> Problems() {
    const auto result = VerifyFolder(folder_);
    EXPECT_OK(result);
    std::vector<std::string> problems;
    for (const VerifyProblem& problem : result->problems) {
      problems.push_back(absl::StrCat(problem.reason, " ", problem.path));
    }
    return problems;
  }

  std::string folder_;
};

TEST(ManifestTest, IsCanonicalAndComesBack) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes, WriteManifest(ExampleManifest()));
  EXPECT_EQ(bytes, nlohmann::json::parse(bytes).dump() + "\n");
  Manifest other_order = ExampleManifest();
  std::swap(other_order.files[0], other_order.files[1]);
  ASSERT_OK_AND_ASSIGN(const std::string same, WriteManifest(other_order));
  EXPECT_EQ(same, bytes);
  ASSERT_OK_AND_ASSIGN(const Manifest read, ReadManifest(bytes));
  ASSERT_OK_AND_ASSIGN(const std::string again, WriteManifest(read));
  EXPECT_EQ(again, bytes);
  EXPECT_EQ(read.attempt, 2);
  EXPECT_EQ(read.protection_handle, "abcdef");
  EXPECT_TRUE(read.certified);
  EXPECT_EQ(read.safety_rows_digest, DigestOf("safety"));
  EXPECT_EQ(read.safety_row_share, 0.25);
  EXPECT_EQ(read.screen_digest, DigestOf("screen"));
  EXPECT_EQ(read.screen_rows_left_out, 7);
  EXPECT_EQ(nlohmann::json::parse(bytes)["protected"], "yes");
}

TEST(ManifestTest, SaysThatAJobWasUnprotected) {
  Manifest manifest = ExampleManifest();
  manifest.unprotected = true;
  ASSERT_OK_AND_ASSIGN(const std::string bytes, WriteManifest(manifest));
  EXPECT_EQ(nlohmann::json::parse(bytes)["protected"], "no");
  ASSERT_OK_AND_ASSIGN(const Manifest read, ReadManifest(bytes));
  EXPECT_TRUE(read.unprotected);
}

TEST(ManifestTest, SaysWhatTheGateSaidAndNothingWithoutOne) {
  ASSERT_OK_AND_ASSIGN(const std::string none, WriteManifest(ExampleManifest()));
  EXPECT_FALSE(nlohmann::json::parse(none).contains("gate"));
  for (const char* gate : {kGatePassed, kGateReleased}) {
    Manifest manifest = ExampleManifest();
    manifest.gate = gate;
    ASSERT_OK_AND_ASSIGN(const std::string bytes, WriteManifest(manifest));
    EXPECT_EQ(nlohmann::json::parse(bytes)["gate"], gate);
    ASSERT_OK_AND_ASSIGN(const Manifest read, ReadManifest(bytes));
    EXPECT_EQ(read.gate, gate);
  }
}

TEST(ManifestTest, RefusesPathsThatLeaveTheFolder) {
  for (const char* path : {"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/.", "a\\b",
                           "a b", "a\nb", "a/..", "\xc3\xa9"}) {
    EXPECT_FALSE(IsSafePath(path)) << path;
    Manifest manifest = ExampleManifest();
    manifest.files[0].path = path;
    EXPECT_THAT(WriteManifest(manifest),
                StatusIs(absl::StatusCode::kInvalidArgument, "MANIFEST_INVALID"));
    ASSERT_OK_AND_ASSIGN(const std::string good, WriteManifest(ExampleManifest()));
    auto json = nlohmann::json::parse(good);
    json["files"][0]["path"] = path;
    EXPECT_THAT(ReadManifest(json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)),
                StatusIs(absl::StatusCode::kInvalidArgument, "MANIFEST_INVALID"))
        << path;
  }
  EXPECT_TRUE(IsSafePath("adapter/adapter_model.safetensors"));
  EXPECT_FALSE(IsSafePath(std::string(256, 'a')));
}

TEST(ManifestTest, RefusesWhatIsNoManifest) {
  ASSERT_OK_AND_ASSIGN(const std::string good, WriteManifest(ExampleManifest()));
  const auto with = [&](const char* pointer, const nlohmann::json& value) {
    auto json = nlohmann::json::parse(good);
    json[nlohmann::json::json_pointer(pointer)] = value;
    return json.dump();
  };
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{}"), good.substr(0, good.size() / 2),
        with("/schema_version", 2), with("/files", "none"), with("/files/0", 7),
        with("/files/0/size_bytes", -1), with("/files/0/size_bytes", "2"),
        with("/files/0/digest", "sha256:12"), with("/files/0/path", "manifest.json"),
        with("/files/0/path", "b.txt")}) {
    EXPECT_THAT(ReadManifest(text),
                StatusIs(absl::StatusCode::kInvalidArgument, "MANIFEST_INVALID"))
        << text;
  }
}

TEST_F(VerifyFolderTest, FindsNothingWrongWithAFreshFolder) {
  EXPECT_THAT(Problems(), IsEmpty());
  ASSERT_OK(WriteFileAtomically(folder_ + "/model.sig", "{}"));
  EXPECT_THAT(Problems(), IsEmpty());
}

TEST_F(VerifyFolderTest, ReportsEachDifference) {
  ASSERT_OK(WriteFileAtomically(folder_ + "/adapter/a.bin", "ab"));
  ASSERT_EQ(unlink((folder_ + "/b.txt").c_str()), 0);
  ASSERT_OK(WriteFileAtomically(folder_ + "/extra.txt", ""));
  ASSERT_OK(WriteFileAtomically(folder_ + "/adapter/model.sig", ""));
  EXPECT_THAT(Problems(),
              ElementsAre("ARTIFACT_FILE_CHANGED adapter/a.bin", "ARTIFACT_FILE_MISSING b.txt",
                          "ARTIFACT_FILE_UNEXPECTED adapter/model.sig",
                          "ARTIFACT_FILE_UNEXPECTED extra.txt"));
}

TEST_F(VerifyFolderTest, NoticesAChangeOfSizeAndALink) {
  ASSERT_OK(WriteFileAtomically(folder_ + "/adapter/a.bin", "aaa"));
  ASSERT_OK(WriteFileAtomically(folder_ + "/real", "bbb"));
  ASSERT_EQ(unlink((folder_ + "/b.txt").c_str()), 0);
  ASSERT_EQ(symlink("real", (folder_ + "/b.txt").c_str()), 0);
  EXPECT_THAT(Problems(),
              ElementsAre("ARTIFACT_FILE_CHANGED adapter/a.bin", "ARTIFACT_FILE_CHANGED b.txt",
                          "ARTIFACT_FILE_UNEXPECTED real"));
}

TEST_F(VerifyFolderTest, FollowsNoLinkedFolder) {
  ASSERT_EQ(symlink("/", (folder_ + "/root").c_str()), 0);
  EXPECT_THAT(Problems(), ElementsAre("ARTIFACT_FILE_UNEXPECTED root"));
}

TEST_F(VerifyFolderTest, NeedsAManifest) {
  ASSERT_EQ(unlink((folder_ + "/manifest.json").c_str()), 0);
  EXPECT_THAT(VerifyFolder(folder_),
              StatusIs(absl::StatusCode::kNotFound, "ARTIFACT_FILE_MISSING"));
  EXPECT_THAT(VerifyFolder(folder_ + "/none"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace ballast::artifact
