// SPDX-License-Identifier: Apache-2.0
#include "server/auth/file_signer.h"

#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

class FileSignerTest : public ::testing::Test {
 protected:
  // Opens a file with `text` and `mode`.
  absl::StatusOr<std::unique_ptr<FileSigner>> Open(const std::string& text, int mode = 0600) {
    EXPECT_OK(WriteFileAtomically(path_, text, mode));
    return FileSigner::Open(path_);
  }
  const std::string path_ = absl::StrCat(::testing::TempDir(), "/", RandomHex(64), ".key");
};

TEST_F(FileSignerTest, SignsWithTheKeyOfTheFile) {
  const PrivateKey key = PrivateKey::Generate();
  ASSERT_OK_AND_ASSIGN(const auto signer, Open(key.ToPem()));
  EXPECT_EQ(signer->public_key().KeyId(), key.public_key().KeyId());
  EXPECT_TRUE(key.public_key().Verify("type", "bytes", signer->Sign("type", "bytes")));
}

TEST_F(FileSignerTest, SaysThatTheFileIsMissingAndHowToMakeOne) {
  const auto signer = FileSigner::Open(path_);
  EXPECT_THAT(signer, StatusIs(absl::StatusCode::kNotFound, "CERTIFICATE_KEY_FILE_MISSING"));
  EXPECT_THAT(std::string(signer.status().message()), HasSubstr("openssl genpkey"));
}

TEST_F(FileSignerTest, TakesNoFileThatOthersMayRead) {
  const std::string pem = PrivateKey::Generate().ToPem();
  for (const int mode : {0640, 0604, 0660, 0610}) {
    const auto signer = Open(pem, mode);
    EXPECT_THAT(signer,
                StatusIs(absl::StatusCode::kPermissionDenied, "CERTIFICATE_KEY_FILE_INVALID"));
    EXPECT_THAT(std::string(signer.status().message()), HasSubstr("chmod 600"));
  }
  EXPECT_OK(Open(pem, 0400));
}

TEST_F(FileSignerTest, TakesNoOtherKey) {
  const std::string pem = PrivateKey::Generate().ToPem();
  for (const std::string& text :
       {std::string(), std::string("nonsense"), PrivateKey::Generate().public_key().ToPem(),
        pem.substr(0, 70), std::string(5000, 'x')}) {
    const auto signer = Open(text);
    EXPECT_THAT(signer,
                StatusIs(absl::StatusCode::kInvalidArgument, "CERTIFICATE_KEY_FILE_INVALID"));
    // The text of a key is in no message.
    EXPECT_THAT(std::string(signer.status().message()), Not(HasSubstr(pem.substr(30, 20))));
  }
  EXPECT_THAT(FileSigner::Open(::testing::TempDir()),
              StatusIs(absl::StatusCode::kInvalidArgument, "CERTIFICATE_KEY_FILE_INVALID"));
}

}  // namespace
}  // namespace ballast::server
