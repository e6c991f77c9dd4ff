// SPDX-License-Identifier: Apache-2.0
#include "common/base/signature.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(SignatureTest, EncodesAsDsseSays) {
  // The example of the DSSE protocol.
  EXPECT_EQ(PreAuthEncoding("http://example.com/HelloWorld", "hello world"),
            "DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

TEST(SignatureTest, KnowsItsOwnSignatureAndNoOther) {
  const PrivateKey key = PrivateKey::Generate();
  const PublicKey verifier = key.public_key();
  const std::string signature = key.Sign("type", "payload");
  EXPECT_EQ(signature.size(), 64u);
  EXPECT_TRUE(verifier.Verify("type", "payload", signature));
  EXPECT_FALSE(verifier.Verify("other", "payload", signature));
  EXPECT_FALSE(verifier.Verify("type", "payloae", signature));
  EXPECT_FALSE(verifier.Verify("type", "", signature));
  EXPECT_FALSE(verifier.Verify("type", "payload", ""));
  EXPECT_FALSE(PrivateKey::Generate().public_key().Verify("type", "payload", signature));
  for (size_t i = 0; i < signature.size(); i += 9) {
    std::string flipped = signature;
    flipped[i] ^= 1;
    EXPECT_FALSE(verifier.Verify("type", "payload", flipped)) << i;
  }
}

TEST(SignatureTest, KeysSurvivePem) {
  const PrivateKey key = PrivateKey::Generate();
  ASSERT_OK_AND_ASSIGN(const PrivateKey again, PrivateKey::FromPem(key.ToPem()));
  EXPECT_EQ(again.Sign("t", "p"), key.Sign("t", "p"));
  ASSERT_OK_AND_ASSIGN(const PublicKey verifier, PublicKey::FromPem(key.public_key().ToPem()));
  EXPECT_TRUE(verifier.Verify("t", "p", key.Sign("t", "p")));
  EXPECT_EQ(verifier.KeyId(), key.public_key().KeyId());
  EXPECT_TRUE(IsDigest(verifier.KeyId()));
  EXPECT_NE(PrivateKey::Generate().public_key().KeyId(), verifier.KeyId());
}

// Test 2 of RFC 8032, section 7.1: a key of OpenSSL's own making signs as the standard says.
TEST(SignatureTest, IsTheEd25519OfTheRfc) {
  const std::string der = absl::HexStringToBytes(
      "302e020100300506032b657004220420"
      "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
  const std::string pem = absl::StrCat("-----BEGIN PRIVATE KEY-----\n", absl::Base64Escape(der),
                                       "\n-----END PRIVATE KEY-----\n");
  ASSERT_OK_AND_ASSIGN(const PrivateKey key, PrivateKey::FromPem(pem));
  EXPECT_EQ(key.public_key().KeyId(),
            DigestOf(absl::HexStringToBytes(
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")));
}

TEST(SignatureTest, RefusesWhatIsNoKey) {
  const PrivateKey key = PrivateKey::Generate();
  EXPECT_THAT(PublicKey::FromPem("").status(), StatusIs(kInvalid, "PUBLIC_KEY_INVALID"));
  EXPECT_THAT(PublicKey::FromPem(key.ToPem()).status(), StatusIs(kInvalid, "PUBLIC_KEY_INVALID"));
  EXPECT_THAT(PrivateKey::FromPem(key.public_key().ToPem()).status(),
              StatusIs(kInvalid, "PRIVATE_KEY_INVALID"));
  // A P-256 key, of openssl genpkey.
  constexpr char kOther[] =
      "-----BEGIN PUBLIC KEY-----\n"
      "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2x9p4dKXf/Aow+Ky2Mfraw874vYI\n"
      "BsDIcJZEQH5r5m/Gf/zUJP28yMvHglpEuEFIdkdt/hw7SpplN13URHqWbw==\n"
      "-----END PUBLIC KEY-----\n";
  EXPECT_THAT(PublicKey::FromPem(kOther).status(), StatusIs(kInvalid, "PUBLIC_KEY_INVALID"));
  const std::string broken = key.ToPem().substr(0, 60);
  const auto status = PrivateKey::FromPem(broken).status();
  EXPECT_THAT(status, StatusIs(kInvalid, "PRIVATE_KEY_INVALID"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr(broken.substr(30, 20))));
}

TEST(SignatureTest, NamesTheFileOfAPublicKey) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", RandomHex(64), ".pem");
  EXPECT_THAT(PublicKey::FromFile(path).status(),
              StatusIs(absl::StatusCode::kNotFound, "PUBLIC_KEY_MISSING"));
  ASSERT_OK(WriteFileAtomically(path, "nonsense"));
  const auto status = PublicKey::FromFile(path).status();
  EXPECT_THAT(status, StatusIs(kInvalid, "PUBLIC_KEY_INVALID"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  ASSERT_OK(WriteFileAtomically(path, PrivateKey::Generate().public_key().ToPem()));
  EXPECT_OK(PublicKey::FromFile(path));
}

}  // namespace
}  // namespace ballast
