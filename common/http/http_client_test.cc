// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_client.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/http/testing/no_authorities.h"
#include "common/http/testing/small_http_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

using ::ballast::testing::NoAuthorities;
using ::ballast::testing::SmallHttpServer;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

using Reply = SmallHttpServer::Reply;
using Request = SmallHttpServer::Request;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
// What no error may say.
constexpr char kSecret[] = "the-signature";
constexpr char kTarget[] = "/bucket/a-name?X-Amz-Signature=the-signature";

std::unique_ptr<HttpClient> Plain(absl::Duration idle = absl::Seconds(20)) {
  return HttpClient::Create({.idle = idle, .allow_plain = true}).value();
}

std::string ManyBytes() {
  std::string bytes(static_cast<size_t>(3 << 20) + 7, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  return bytes;
}

// What a Get brought, and how it ended.
struct Got {
  std::string bytes;
  absl::Status status;
};

Got Get(const HttpClient& client, const std::string& url, int64_t offset, int64_t size,
        const HttpClient::GoesOn& goes_on = {}) {
  Got got;
  got.status = client.Get(
      url, offset, size,
      [&](std::string_view piece) {
        got.bytes += piece;
        return absl::OkStatus();
      },
      goes_on);
  return got;
}

absl::Status Put(const HttpClient& client, const std::string& url, std::string_view bytes,
                 const std::map<std::string, std::string>& headers = {}) {
  size_t at = 0;
  return client.Put(url, headers, static_cast<int64_t>(bytes.size()),
                    [&](char* data, size_t room) -> absl::StatusOr<size_t> {
                      const std::string_view piece = bytes.substr(at, room);
                      piece.copy(data, piece.size());
                      at += piece.size();
                      return piece.size();
                    });
}

void ExpectNoSecret(const absl::Status& status) {
  const std::string all = status.ToString(absl::StatusToStringMode::kWithEverything);
  EXPECT_THAT(all, Not(HasSubstr(kSecret)));
  EXPECT_THAT(all, Not(HasSubstr("bucket")));
  EXPECT_THAT(all, Not(HasSubstr("a-name")));
}

TEST(HttpClientTest, GetsRanges) {
  const std::string bytes = ManyBytes();
  SmallHttpServer server(
      [&](const Request& request) { return SmallHttpServer::Range(request, bytes); });
  const auto client = Plain();
  const auto size = static_cast<int64_t>(bytes.size());
  const Got whole = Get(*client, server.Url(kTarget), 0, size);
  EXPECT_OK(whole.status);
  EXPECT_TRUE(whole.bytes == bytes);
  const Got part = Get(*client, server.Url(kTarget), 1'000'000, 5);
  EXPECT_OK(part.status);
  EXPECT_EQ(part.bytes, bytes.substr(1'000'000, 5));
  EXPECT_EQ(server.requests()[1].headers.at("range"), "bytes=1000000-1000004");
  EXPECT_EQ(server.requests()[1].target, kTarget);
}

TEST(HttpClientTest, TakesNoMoreThanItAskedFor) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, "0123456789"); });
  const Got got = Get(*Plain(), server.Url(kTarget), 0, 4);
  EXPECT_OK(got.status);
  EXPECT_EQ(got.bytes, "0123");
}

TEST(HttpClientTest, OtherBytesThanAskedForAreNoSuccess) {
  // A server that knows no ranges answers with the whole.
  SmallHttpServer whole([](const Request&) { return SmallHttpServer::Plain(200, "0123456789"); });
  const Got got = Get(*Plain(), whole.Url(kTarget), 4, 2);
  EXPECT_THAT(got.status, StatusIs(kUnavailable, "LINK_BROKEN"));
  EXPECT_EQ(got.bytes, "");
  SmallHttpServer shifted([](const Request&) {
    return Reply{
        "HTTP/1.1 206 Partial\r\nContent-Length: 2\r\nContent-Range: bytes 40-41/99\r\n\r\nxx"};
  });
  EXPECT_THAT(Get(*Plain(), shifted.Url(kTarget), 4, 2).status,
              StatusIs(kUnavailable, "LINK_BROKEN"));
}

TEST(HttpClientTest, WhatBreaksOffIsToldWithWhatCame) {
  SmallHttpServer server(
      [](const Request&) { return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"}; });
  const Got got = Get(*Plain(), server.Url(kTarget), 0, 10);
  EXPECT_THAT(got.status, StatusIs(kUnavailable, "LINK_BROKEN"));
  EXPECT_EQ(got.bytes, "0123");
  ExpectNoSecret(got.status);
  SmallHttpServer early([](const Request&) { return SmallHttpServer::Plain(200, "0123"); });
  EXPECT_THAT(Get(*Plain(), early.Url(kTarget), 0, 10).status,
              StatusIs(kUnavailable, "LINK_BROKEN"));
}

TEST(HttpClientTest, ARefusalTellsHostAndStatusAndNoSecret) {
  SmallHttpServer server([](const Request& request) {
    const int status = request.target.find("busy") == std::string::npos ? 403 : 503;
    return SmallHttpServer::Plain(status, "<Error>the-signature of a-name</Error>");
  });
  const auto client = Plain();
  for (const absl::Status& status : {Get(*client, server.Url(kTarget), 0, 4).status,
                                     Put(*client, server.Url(kTarget), "bytes")}) {
    EXPECT_THAT(status, StatusIs(kDenied, "LINK_REFUSED"));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("127.0.0.1:", server.port(), " was answered with 403")));
    ExpectNoSecret(status);
  }
  EXPECT_THAT(Get(*client, server.Url("/busy"), 0, 4).status,
              StatusIs(kUnavailable, "LINK_REFUSED"));
}

TEST(HttpClientTest, FollowsNoRedirect) {
  SmallHttpServer other([](const Request&) { return SmallHttpServer::Plain(200, "stolen"); });
  SmallHttpServer server([&](const Request&) {
    return Reply{absl::StrCat("HTTP/1.1 307 Moved\r\nLocation: ", other.Url("/"),
                              "\r\nContent-Length: 0\r\n\r\n")};
  });
  EXPECT_THAT(Get(*Plain(), server.Url(kTarget), 0, 4).status, StatusIs(kDenied, "LINK_REFUSED"));
  EXPECT_THAT(Put(*Plain(), server.Url(kTarget), "x"), StatusIs(kDenied, "LINK_REFUSED"));
  EXPECT_TRUE(other.requests().empty());
}

TEST(HttpClientTest, SendsNoCookies) {
  SmallHttpServer server([](const Request&) {
    // Closed, or the second request might meet this connection's end.
    return Reply{
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"};
  });
  const auto client = Plain();
  for (int i = 0; i < 2; ++i) EXPECT_OK(Get(*client, server.Url("/"), 0, 1).status);
  EXPECT_EQ(server.requests()[1].headers.count("cookie"), 0u);
}

TEST(HttpClientTest, PlainHttpOnlyWhereItIsAllowed) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, "x"); });
  const auto client = HttpClient::Create({}).value();
  for (const absl::Status& status :
       {Get(*client, server.Url(kTarget), 0, 1).status, Put(*client, server.Url(kTarget), "x")}) {
    EXPECT_THAT(status, StatusIs(kInvalid, "LINK_INVALID"));
    ExpectNoSecret(status);
  }
  EXPECT_TRUE(server.requests().empty());
  for (const char* url : {"", "a-name", "ftp://host/a-name", "file:///bucket/a-name"}) {
    const absl::Status status = Get(*Plain(), url, 0, 1).status;
    EXPECT_THAT(status, StatusIs(kInvalid, "LINK_INVALID")) << url;
    ExpectNoSecret(status);
  }
}

TEST(HttpClientTest, PlainHttpOnlyToThisMachine) {
  for (const char* host : {"192.0.2.1", "0.0.0.0:1", "[2001:db8::1]", "[::ffff:127.0.0.1]:1",
                           "store.example.com", "127.0.0.1.example.com", "localhost.example.com",
                           "127.0.0.1@192.0.2.1", "localhost@store.example.com:1"}) {
    const std::string url = absl::StrCat("http://", host, kTarget);
    for (const absl::Status& status : {Get(*Plain(), url, 0, 1).status, Put(*Plain(), url, "x")}) {
      EXPECT_THAT(status, StatusIs(kInvalid, "LINK_INVALID")) << host;
      ExpectNoSecret(status);
    }
  }
  for (const char* host : {"127.0.0.2:1", "localhost:1", "LOCALHOST:1", "[::1]:1"}) {
    EXPECT_THAT(Get(*Plain(), absl::StrCat("http://", host, kTarget), 0, 1).status,
                StatusIs(kUnavailable, "LINK_UNREACHABLE"))
        << host;
  }
}

TEST(HttpClientTest, AMachineWithoutAuthoritiesIsToldSo) {
  {
    const NoAuthorities none;
    EXPECT_THAT(HttpClient::Create({}),
                StatusIs(absl::StatusCode::kFailedPrecondition, "HTTP_UNAVAILABLE"));
  }
  EXPECT_OK(HttpClient::Create({}));
}

TEST(HttpClientTest, BytesThatCannotBeAreNotAskedFor) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, "x"); });
  const std::pair<int64_t, int64_t> ranges[] = {{0, 0}, {0, -1}, {-1, 1}, {1, kMost}, {kMost, 1}};
  for (const auto& [offset, size] : ranges) {
    EXPECT_THAT(Get(*Plain(), server.Url("/"), offset, size).status,
                StatusIs(kInvalid, "LINK_INVALID"))
        << offset << " " << size;
  }
  EXPECT_TRUE(server.requests().empty());
  EXPECT_TRUE(IsWithin(0, 0, 0) && IsWithin(4, 6, 10) && IsWithin(10, 0, 10));
  EXPECT_FALSE(IsWithin(-1, 2, 10) || IsWithin(0, -1, 10) || IsWithin(5, 6, 10) ||
               IsWithin(11, 0, 10) || IsWithin(kMost, kMost, kMost) || IsWithin(0, 0, -1));
}

TEST(HttpClientTest, AProxyOfTheEnvironmentSeesNothingInClear) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, "x"); });
  // Nothing listens on port 1.
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy"}) {
    setenv(name, "http://127.0.0.1:1", 1);
  }
  EXPECT_OK(Get(*Plain(), server.Url("/"), 0, 1).status);
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy"}) unsetenv(name);
}

TEST(HttpClientTest, NobodyThereIsUnreachable) {
  const absl::Status status =
      Get(*Plain(), absl::StrCat("http://127.0.0.1:1", kTarget), 0, 1).status;
  EXPECT_THAT(status, StatusIs(kUnavailable, "LINK_UNREACHABLE"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:1"));
  ExpectNoSecret(status);
}

TEST(HttpClientTest, WhatStandsStillIsGivenUp) {
  SmallHttpServer server([](const Request& request) {
    if (request.target == "/nothing") return Reply{"", true};
    return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", true};
  });
  const auto client = Plain(absl::Milliseconds(300));
  const absl::Time begin = absl::Now();
  const Got got = Get(*client, server.Url("/some"), 0, 10);
  EXPECT_THAT(got.status, StatusIs(kUnavailable, "LINK_UNREACHABLE"));
  EXPECT_EQ(got.bytes, "0123");
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST(HttpClientTest, APutThatNobodyAnswersIsGivenUp) {
  SmallHttpServer server([](const Request&) { return Reply{"", true}; });
  EXPECT_THAT(Put(*Plain(absl::Milliseconds(300)), server.Url(kTarget), "x"),
              StatusIs(kUnavailable, "LINK_UNREACHABLE"));
}

TEST(HttpClientTest, EndsWhereTheCallerSaysSo) {
  SmallHttpServer server([](const Request&) {
    return Reply{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", true};
  });
  int asked = 0;
  const absl::Time begin = absl::Now();
  const Got got = Get(*Plain(), server.Url("/"), 0, 10, [&] { return ++asked < 2; });
  EXPECT_THAT(got.status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST(HttpClientTest, EndsWhereTheCallerSaysSoWhileBytesCome) {
  const std::string bytes = ManyBytes();
  SmallHttpServer server(
      [&](const Request& request) { return SmallHttpServer::Range(request, bytes); });
  const auto size = static_cast<int64_t>(bytes.size());
  int64_t got = 0;
  int pieces = 0;
  EXPECT_THAT(Plain()->Get(
                  server.Url("/"), 0, size,
                  [&](std::string_view piece) {
                    got += static_cast<int64_t>(piece.size());
                    ++pieces;
                    return absl::OkStatus();
                  },
                  [&] { return pieces == 0; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(pieces, 1);
  EXPECT_LT(got, size);
  int reads = 0;
  EXPECT_THAT(Plain()->Put(
                  server.Url("/"), {}, size,
                  [&](char* data, size_t room) -> absl::StatusOr<size_t> {
                    ++reads;
                    std::fill_n(data, room, 'x');
                    return room;
                  },
                  [&] { return reads == 0; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(reads, 1);
}

TEST(HttpClientTest, WhatComesTooSlowlyIsGivenUp) {
  SmallHttpServer server([](const Request&) {
    return Reply{.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n0123",
                 .then_trickle = true};
  });
  const auto client = Plain(absl::Seconds(1));
  const Got got = Get(*client, server.Url(kTarget), 0, 100'000);
  EXPECT_THAT(got.status, StatusIs(kUnavailable, "LINK_SLOW"));
  EXPECT_GT(got.bytes.size(), 4u);
  EXPECT_LT(got.bytes.size(), 1000u);
  ExpectNoSecret(got.status);
}

TEST(HttpClientTest, AFailureOfTheSinkComesBackAsItIs) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, "0123"); });
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL", "no room");
  EXPECT_EQ(Plain()->Get(server.Url("/"), 0, 4, [&](std::string_view) { return full; }), full);
}

TEST(HttpClientTest, PutsBytesWithTheirLengthAndHeaders) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, ""); });
  const std::string bytes = ManyBytes();
  ASSERT_OK(Put(*Plain(), server.Url(kTarget), bytes, {{"x-kind", "block"}}));
  const Request got = server.requests().at(0);
  EXPECT_EQ(got.method, "PUT");
  EXPECT_EQ(got.target, kTarget);
  EXPECT_EQ(got.headers.at("content-length"), absl::StrCat(bytes.size()));
  EXPECT_EQ(got.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(got.headers.at("x-kind"), "block");
  EXPECT_TRUE(got.body == bytes);
}

TEST(HttpClientTest, APutWhoseSourceFailsIsNeverWhole) {
  SmallHttpServer server([](const Request&) { return SmallHttpServer::Plain(200, ""); });
  const absl::Status gone =
      MakeError(absl::StatusCode::kFailedPrecondition, "FILE_CHANGED", "gone");
  bool first = true;
  EXPECT_EQ(Plain()->Put(server.Url(kTarget), {}, 100,
                         [&](char* data, size_t) -> absl::StatusOr<size_t> {
                           if (!std::exchange(first, false)) return gone;
                           data[0] = 'x';
                           return 1;
                         }),
            gone);
  for (const Request& request : server.requests()) EXPECT_LT(request.body.size(), 100u);
}

}  // namespace
}  // namespace ballast
