// SPDX-License-Identifier: Apache-2.0
#include "worker/secret.h"

#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::worker {
namespace {

// The line VmFlags of the mapping that holds `address`, from the kernel.
std::string VmFlagsOf(const void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  while (std::getline(maps, line)) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream range(line);
    if (range >> std::hex >> begin >> dash >> end && dash == '-')
      inside = begin <= wanted && wanted < end;
    if (inside && line.starts_with("VmFlags:")) return line + " ";
  }
  return "";
}

TEST(SecretBufferTest, StartsZeroedAndKeepsItsBytes) {
  const SecretBuffer empty;
  EXPECT_TRUE(empty.empty());
  EXPECT_TRUE(SecretBuffer(0).empty());
  const SecretBuffer zeroed(5000);
  EXPECT_EQ(zeroed.view(), std::string(5000, '\0'));
  EXPECT_EQ(SecretBuffer::CopyOf("secret").view(), "secret");
}

TEST(SecretBufferTest, MovesWithoutCopying) {
  SecretBuffer first = SecretBuffer::CopyOf("one");
  const char* data = first.data();
  SecretBuffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): what the move leaves is the point
  SecretBuffer third = SecretBuffer::CopyOf("two");
  third = std::move(second);
  EXPECT_EQ(third.view(), "one");
}

TEST(SecretBufferTest, IsOnPagesOfItsOwnOutOfCoreDumpsAndForks) {
  const SecretBuffer secret = SecretBuffer::CopyOf("secret");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(secret.data()) % sysconf(_SC_PAGESIZE), 0U);
  const std::string flags = VmFlagsOf(secret.data());
  EXPECT_THAT(flags, ::testing::HasSubstr(" dd ")) << "not excluded from core dumps";
  EXPECT_THAT(flags, ::testing::HasSubstr(" dc ")) << "copied into forked children";
}

}  // namespace
}  // namespace ballast::worker
