// SPDX-License-Identifier: Apache-2.0
#include "common/base/loopback.h"

#include <string_view>

#include "gtest/gtest.h"

namespace ballast {
namespace {

using std::string_view_literals::operator""sv;

TEST(LoopbackTest, HostsOfThisMachine) {
  for (const auto host : {"localhost"sv, "127.0.0.1"sv, "127.9.9.9"sv, "::1"sv, "[::1]"sv}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
}

TEST(LoopbackTest, NamesThatLookLikeOneAndOtherMachines) {
  for (const auto host :
       {""sv, "127.example.com"sv, "127.0.0.1.example.com"sv, "127."sv, "127.1"sv,
        "localhost.example.com"sv, "1127.0.0.1"sv, "0.0.0.0"sv, "10.0.0.1"sv, "::"sv, "[::]"sv,
        "[::1"sv, "::1]"sv, "[]"sv, "2001:db8::1"sv, "[127.0.0.1]"sv, "127.0.0.1\0.org"sv}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

TEST(LoopbackTest, Addresses) {
  for (const auto address : {"localhost:7070"sv, "127.0.0.1:7070"sv, "[::1]:7070"sv}) {
    EXPECT_TRUE(IsLoopbackAddress(address)) << address;
  }
  for (const auto address : {""sv, ":7070"sv, "127.example.com:7070"sv, "[2001:db8::1]:7070"sv,
                             "127.0.0.1.example.com:7070"sv}) {
    EXPECT_FALSE(IsLoopbackAddress(address)) << address;
  }
}

}  // namespace
}  // namespace ballast
