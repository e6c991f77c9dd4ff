// SPDX-License-Identifier: Apache-2.0
#include "worker/vault/file_key_provider.h"

#include <sys/stat.h>

#include <string>

#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker::vault {
namespace {

using ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Write(const std::string& name, const std::string& content, int mode = 0600) {
  const std::string path = ::testing::TempDir() + "/file_key_provider_" + name;
  EXPECT_OK(WriteFileAtomically(path, content, mode));
  EXPECT_EQ(chmod(path.c_str(), static_cast<mode_t>(mode)), 0);
  return path;
}

const std::string kHex = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

TEST(FileKeyProviderTest, ReadsAKeyWithOrWithoutALineEnd) {
  ASSERT_OK_AND_ASSIGN(const auto plain, FileKeyProvider::Open(Write("plain", kHex)));
  ASSERT_OK_AND_ASSIGN(const auto line, FileKeyProvider::Open(Write("line", kHex + "\r\n")));
  EXPECT_EQ(plain->KeyId(), line->KeyId());
  EXPECT_EQ(plain->KeyId().size(), kKeyIdBytes);
  std::string other = kHex;
  other[0] = '1';
  ASSERT_OK_AND_ASSIGN(const auto different, FileKeyProvider::Open(Write("other", other)));
  EXPECT_NE(plain->KeyId(), different->KeyId());
}

TEST(FileKeyProviderTest, SaysThatAFileIsMissing) {
  const auto missing = FileKeyProvider::Open("/nonexistent/vault.key");
  EXPECT_THAT(missing, StatusIs(absl::StatusCode::kNotFound, "VAULT_KEY_FILE_MISSING"));
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/vault.key"));
}

TEST(FileKeyProviderTest, RefusesWhatIsNot64HexDigitsWithoutQuotingIt) {
  for (const std::string& content :
       {std::string(), kHex.substr(1), kHex + "0", kHex + kHex, std::string(64, 'g'),
        " " + kHex.substr(1), kHex.substr(0, 63) + "-"}) {
    const auto bad = FileKeyProvider::Open(Write("bad", content));
    EXPECT_THAT(bad, StatusIs(absl::StatusCode::kInvalidArgument, "VAULT_KEY_FILE_INVALID"))
        << content;
    EXPECT_THAT(std::string(bad.status().message()), Not(HasSubstr("0011")));
  }
}

TEST(FileKeyProviderTest, RefusesAFileThatOthersCanRead) {
  for (const int mode : {0640, 0604, 0660, 0644, 0620}) {
    const auto open = FileKeyProvider::Open(Write("open", kHex, mode));
    EXPECT_THAT(open, StatusIs(absl::StatusCode::kPermissionDenied, "VAULT_KEY_FILE_INVALID"))
        << mode;
    EXPECT_THAT(std::string(open.status().message()), HasSubstr("chmod 600"));
  }
}

TEST(FileKeyProviderTest, RefusesAFolder) {
  EXPECT_THAT(FileKeyProvider::Open(::testing::TempDir()),
              StatusIs(absl::StatusCode::kInvalidArgument, "VAULT_KEY_FILE_INVALID"));
}

TEST(FileKeyProviderTest, UnwrapsOnlyWithTheSameAdditionalData) {
  FileKeyProvider keys(SecretBuffer::CopyOf(std::string(32, 'k')));
  const SecretBuffer data_key = SecretBuffer::CopyOf(std::string(32, 'd'));
  ASSERT_OK_AND_ASSIGN(const std::string wrapped, keys.Wrap(data_key, "this"));
  EXPECT_EQ(wrapped.size(), kWrappedKeyBytes);
  ASSERT_OK_AND_ASSIGN(const SecretBuffer same, keys.Unwrap(keys.KeyId(), wrapped, "this"));
  EXPECT_EQ(same.view(), data_key.view());
  EXPECT_THAT(keys.Unwrap(keys.KeyId(), wrapped, "that"),
              StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"));
  EXPECT_THAT(keys.Unwrap(std::string(16, 'x'), wrapped, "this"),
              StatusIs(absl::StatusCode::kFailedPrecondition, "VAULT_KEY_WRONG"));
}

}  // namespace
}  // namespace ballast::worker::vault
