// SPDX-License-Identifier: Apache-2.0
#include "worker/vault/envelope_vault.h"

#include <string>

#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::worker::vault {
namespace {

using ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

EnvelopeVault VaultWithKey(char fill) {
  return EnvelopeVault(
      std::make_unique<FileKeyProvider>(SecretBuffer::CopyOf(std::string(32, fill))));
}

const VectorBinding kBinding = {"vec-1", 3, "sha256:abc"};

TEST(EnvelopeVaultTest, OpensWhatItSealed) {
  EnvelopeVault vault = VaultWithKey('k');
  for (const size_t size : {size_t{0}, size_t{1}, size_t{31}, size_t{100'000}}) {
    const std::string secret(size, 's');
    ASSERT_OK_AND_ASSIGN(const std::string sealed,
                         vault.Seal(SecretBuffer::CopyOf(secret), kBinding));
    ASSERT_OK_AND_ASSIGN(const SecretBuffer opened, vault.Unseal(sealed, kBinding));
    EXPECT_EQ(opened.view(), secret);
  }
}

TEST(EnvelopeVaultTest, ShowsNothingOfThePlaintextAndNeverRepeatsItself) {
  EnvelopeVault vault = VaultWithKey('k');
  const SecretBuffer secret = SecretBuffer::CopyOf(std::string(64, 's'));
  ASSERT_OK_AND_ASSIGN(const std::string first, vault.Seal(secret, kBinding));
  ASSERT_OK_AND_ASSIGN(const std::string second, vault.Seal(secret, kBinding));
  EXPECT_THAT(first, Not(HasSubstr("ssss")));
  EXPECT_THAT(first, Not(HasSubstr("kkkk")));
  EXPECT_NE(first.substr(24), second.substr(24));
}

TEST(EnvelopeVaultTest, NoticesAFlippedBitInEveryByte) {
  EnvelopeVault vault = VaultWithKey('k');
  ASSERT_OK_AND_ASSIGN(
      std::string sealed,
      vault.Seal(SecretBuffer::CopyOf("forty bytes of something to protect....."), kBinding));
  for (size_t at = 0; at < sealed.size(); ++at) {
    for (const int bit : {0, 7}) {
      sealed[at] = static_cast<char>(sealed[at] ^ (1 << bit));
      // A changed key id reads as another key; everything else is damage.
      const bool in_key_id = at >= 8 && at < 24;
      EXPECT_EQ(ErrorReason(vault.Unseal(sealed, kBinding).status()),
                in_key_id ? "VAULT_KEY_WRONG" : "VECTOR_CORRUPT")
          << "byte " << at;
      sealed[at] = static_cast<char>(sealed[at] ^ (1 << bit));
    }
  }
  EXPECT_OK(vault.Unseal(sealed, kBinding));
}

TEST(EnvelopeVaultTest, NoticesEveryTruncationAndAnythingAppended) {
  EnvelopeVault vault = VaultWithKey('k');
  ASSERT_OK_AND_ASSIGN(const std::string sealed,
                       vault.Seal(SecretBuffer::CopyOf("secret"), kBinding));
  for (size_t size = 0; size < sealed.size(); ++size) {
    EXPECT_THAT(vault.Unseal(sealed.substr(0, size), kBinding),
                StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"))
        << size;
  }
  EXPECT_THAT(vault.Unseal(sealed + "x", kBinding),
              StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"));
}

TEST(EnvelopeVaultTest, AnotherKeyIsTheWrongKeyNotDamage) {
  EnvelopeVault vault = VaultWithKey('k');
  EnvelopeVault other = VaultWithKey('o');
  ASSERT_OK_AND_ASSIGN(const std::string sealed,
                       vault.Seal(SecretBuffer::CopyOf("secret"), kBinding));
  EXPECT_THAT(other.Unseal(sealed, kBinding),
              StatusIs(absl::StatusCode::kFailedPrecondition, "VAULT_KEY_WRONG"));
}

TEST(EnvelopeVaultTest, CannotBeSwappedToAnotherBinding) {
  EnvelopeVault vault = VaultWithKey('k');
  ASSERT_OK_AND_ASSIGN(const std::string sealed,
                       vault.Seal(SecretBuffer::CopyOf("secret"), kBinding));
  for (const VectorBinding& other :
       {VectorBinding{"vec-2", 3, "sha256:abc"}, VectorBinding{"vec-1", 4, "sha256:abc"},
        VectorBinding{"vec-1", 3, "sha256:abd"}, VectorBinding{"", 3, "sha256:abc"}}) {
    EXPECT_THAT(vault.Unseal(sealed, other),
                StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"));
  }
}

TEST(EnvelopeVaultTest, PartsOfTheBindingCannotRunIntoEachOther) {
  EnvelopeVault vault = VaultWithKey('k');
  ASSERT_OK_AND_ASSIGN(const std::string sealed,
                       vault.Seal(SecretBuffer::CopyOf("secret"), {"ab", 1, "c"}));
  EXPECT_THAT(vault.Unseal(sealed, {"a", 1, "bc"}),
              StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"));
}

TEST(EnvelopeVaultTest, HalvesOfTwoEnvelopesDoNotMix) {
  EnvelopeVault vault = VaultWithKey('k');
  ASSERT_OK_AND_ASSIGN(const std::string first,
                       vault.Seal(SecretBuffer::CopyOf("secret"), kBinding));
  ASSERT_OK_AND_ASSIGN(const std::string second,
                       vault.Seal(SecretBuffer::CopyOf("terces"), kBinding));
  ASSERT_EQ(first.size(), second.size());
  // The first 24 bytes are the same in both.
  for (const size_t cut : {size_t{84}, size_t{96}, size_t{104}, first.size() - 16}) {
    EXPECT_THAT(vault.Unseal(first.substr(0, cut) + second.substr(cut), kBinding),
                StatusIs(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT"))
        << cut;
  }
}

}  // namespace
}  // namespace ballast::worker::vault
