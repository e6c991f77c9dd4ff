// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/base_cache.h"

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::StatusIs;
using ballast::worker::v1::BaseModelFiles;

class BaseCacheTest : public ::testing::Test {
 protected:
  BaseCacheTest() : folder_(absl::StrCat(::testing::TempDir(), "/base_cache_", RandomHex(64))) {}
  ~BaseCacheTest() override { std::filesystem::remove_all(folder_); }

  // A description of `files`, whose blobs hold their contents.
  BaseModelFiles Describe(const std::map<std::string, std::string>& files) {
    BaseModelFiles base;
    base.set_name("baseModels/tiny");
    Sha256 digest;
    for (const auto& [name, bytes] : files) {
      auto* file = base.add_files();
      file->set_file_name(name);
      file->set_blob("blob of " + name);
      file->set_size_bytes(static_cast<int64_t>(bytes.size()));
      file->set_digest(DigestOf(bytes));
      digest.Update(absl::StrCat(name, " ", file->digest(), "\n"));
      blobs_["blob of " + name] = bytes;
    }
    base.set_digest(digest.Finish());
    return base;
  }

  BaseCache::Fetch Fetch() {
    return
        [this](const std::string& blob, const std::function<absl::Status(std::string_view)>& sink) {
          ++fetches_;
          const std::string& bytes = blobs_.at(blob);
          const absl::Status status = sink(bytes.substr(0, bytes.size() / 2));
          return status.ok() ? sink(bytes.substr(bytes.size() / 2)) : status;
        };
  }

  int Entries() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_)) ++count;
    return count;
  }

  const std::string folder_;
  std::map<std::string, std::string> blobs_;
  int fetches_ = 0;
};

TEST_F(BaseCacheTest, FetchesOnceForAllCachesOnTheFolder) {
  const BaseModelFiles base = Describe({{"config.json", "{}"}, {"model.safetensors", "weights"}});
  BaseCache cache(folder_);
  ASSERT_OK(cache.Open());
  ASSERT_OK_AND_ASSIGN(const std::string path, cache.Get(base, Fetch()));
  ASSERT_OK_AND_ASSIGN(const std::string weights, ReadFile(path + "/model.safetensors"));
  EXPECT_EQ(weights, "weights");
  EXPECT_EQ(fetches_, 2);
  ASSERT_OK(cache.Get(base, Fetch()));
  BaseCache another(folder_);
  ASSERT_OK(another.Open());
  ASSERT_OK(another.Get(base, Fetch()));
  EXPECT_EQ(fetches_, 2);
  EXPECT_EQ(Entries(), 1);
}

TEST_F(BaseCacheTest, FetchesADamagedCopyAgain) {
  const BaseModelFiles base = Describe({{"config.json", "{}"}, {"model.safetensors", "weights"}});
  BaseCache first(folder_);
  ASSERT_OK(first.Open());
  ASSERT_OK_AND_ASSIGN(const std::string path, first.Get(base, Fetch()));
  ASSERT_OK(WriteFileAtomically(path + "/model.safetensors", "weightz"));
  BaseCache second(folder_);
  ASSERT_OK(second.Open());
  ASSERT_OK(second.Get(base, Fetch()));
  EXPECT_EQ(fetches_, 4);
  ASSERT_OK_AND_ASSIGN(const std::string weights, ReadFile(path + "/model.safetensors"));
  EXPECT_EQ(weights, "weights");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(BaseCacheTest, KeepsNothingOfBytesThatAreNotWhatTheDigestSays) {
  const BaseModelFiles base = Describe({{"config.json", "{}"}, {"model.safetensors", "weights"}});
  BaseCache cache(folder_);
  ASSERT_OK(cache.Open());
  for (const char* bytes : {"weightz", "weight", "weights and more"}) {
    blobs_["blob of model.safetensors"] = bytes;
    EXPECT_THAT(cache.Get(base, Fetch()),
                StatusIs(absl::StatusCode::kDataLoss, "BASE_MODEL_CORRUPT"));
    EXPECT_EQ(Entries(), 0);
  }
}

TEST_F(BaseCacheTest, KeepsNothingOfABrokenDownload) {
  const BaseModelFiles base = Describe({{"config.json", "{}"}, {"model.safetensors", "weights"}});
  BaseCache cache(folder_);
  ASSERT_OK(cache.Open());
  EXPECT_THAT(cache.Get(base,
                        [](const std::string&, const auto& sink) {
                          const absl::Status status = sink("{");
                          return status.ok() ? absl::UnavailableError("gone") : status;
                        }),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(Entries(), 0);
}

TEST_F(BaseCacheTest, AcceptsTheCopyOfAWorkerThatWasFaster) {
  const BaseModelFiles base = Describe({{"config.json", "{}"}});
  BaseCache slow(folder_);
  ASSERT_OK(slow.Open());
  BaseCache fast(folder_);
  ASSERT_OK(fast.Open());
  const auto path = slow.Get(base, [&](const std::string& blob, const auto& sink) {
    EXPECT_OK(fast.Get(base, Fetch()));
    return sink(blobs_.at(blob));
  });
  EXPECT_OK(path);
  EXPECT_EQ(Entries(), 1);
}

TEST_F(BaseCacheTest, RefusesNamesThatLeaveTheFolderAndDigestsThatAreNone) {
  BaseCache cache(folder_);
  ASSERT_OK(cache.Open());
  for (const char* name : {"../evil", "a/b", "/etc/passwd", "", ".."}) {
    EXPECT_THAT(cache.Get(Describe({{name, "x"}}), Fetch()),
                StatusIs(absl::StatusCode::kInvalidArgument, "BASE_MODEL_INVALID"))
        << name;
  }
  BaseModelFiles base = Describe({{"config.json", "{}"}});
  base.set_digest("sha256:../../x");
  EXPECT_THAT(cache.Get(base, Fetch()),
              StatusIs(absl::StatusCode::kInvalidArgument, "BASE_MODEL_INVALID"));
  base.set_digest(DigestOf("something else"));
  EXPECT_THAT(cache.Get(base, Fetch()),
              StatusIs(absl::StatusCode::kInvalidArgument, "BASE_MODEL_INVALID"));
  EXPECT_EQ(fetches_, 0);
}

TEST_F(BaseCacheTest, RemovesOnlyOldLeftovers) {
  BaseCache cache(folder_);
  ASSERT_OK(cache.Open());
  ASSERT_OK(MakeDirectories(folder_ + "/tmp-old"));
  ASSERT_OK(MakeDirectories(folder_ + "/tmp-new"));
  ASSERT_OK(MakeDirectories(folder_ + "/base-old"));
  const auto old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(48);
  std::filesystem::last_write_time(folder_ + "/tmp-old", old);
  std::filesystem::last_write_time(folder_ + "/base-old", old);
  ASSERT_OK(cache.Open());
  EXPECT_FALSE(FileExists(folder_ + "/tmp-old"));
  EXPECT_TRUE(FileExists(folder_ + "/tmp-new"));
  EXPECT_TRUE(FileExists(folder_ + "/base-old"));
}

}  // namespace
}  // namespace ballast::worker::agent
