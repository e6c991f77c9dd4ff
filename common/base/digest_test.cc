// SPDX-License-Identifier: Apache-2.0
#include "common/base/digest.h"

#include <set>

#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ballast::testing::IsOkAndHolds;
using ballast::testing::StatusIs;

// FIPS 180-2, appendix B.1.
constexpr char kAbc[] = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(DigestTest, KnownAnswer) {
  EXPECT_EQ(DigestOf("abc"), kAbc);
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(sha.Finish(), kAbc);
}

TEST(DigestTest, OfAFile) {
  const std::string path = ::testing::TempDir() + "/abc";
  ASSERT_OK(WriteFileAtomically(path, "abc"));
  EXPECT_THAT(DigestOfFile(path), IsOkAndHolds(kAbc));
  EXPECT_THAT(DigestOfFile(path + ".none"),
              StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
}

TEST(DigestTest, ShapeIsChecked) {
  EXPECT_TRUE(IsDigest(kAbc));
  EXPECT_FALSE(IsDigest("sha256:abc"));
  EXPECT_FALSE(IsDigest(std::string(kAbc) + "0"));
  EXPECT_FALSE(IsDigest("sha256:" + std::string(64, 'G')));
}

TEST(DigestTest, RandomIdsDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(RandomHex(128));
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(seen.begin()->size(), 32u);
}

}  // namespace
}  // namespace ballast
