// SPDX-License-Identifier: Apache-2.0
#include "server/testing/by_link.h"

#include <memory>

#include "common/base/status_macros.h"
#include "common/http/http_client.h"
#include "gtest/gtest.h"

namespace ballast::server::testing {
namespace {

const HttpClient& Client() {
  static const HttpClient& client =
      *HttpClient::Create({.allow_plain = true}).value().release();  // never destroyed
  return client;
}

}  // namespace

absl::StatusOr<std::string> GetByLink(const std::string& url, int64_t offset, int64_t size_bytes) {
  std::string bytes;
  BALLAST_RETURN_IF_ERROR(Client().Get(url, offset, size_bytes, [&](std::string_view piece) {
    bytes += piece;
    return absl::OkStatus();
  }));
  return bytes;
}

absl::Status PutByLink(const std::string& url, const std::map<std::string, std::string>& headers,
                       const std::string& bytes) {
  size_t at = 0;
  return Client().Put(url, headers, static_cast<int64_t>(bytes.size()),
                      [&](char* data, size_t room) -> absl::StatusOr<size_t> {
                        const size_t size = bytes.copy(data, room, at);
                        at += size;
                        return size;
                      });
}

absl::StatusOr<std::string> GetByLinks(const BlobLinks& links) {
  std::string bytes;
  for (const BlobLink& link : links.links) {
    EXPECT_EQ(link.offset, static_cast<int64_t>(bytes.size()));
    BALLAST_ASSIGN_OR_RETURN(const std::string piece, GetByLink(link.url, 0, link.size_bytes));
    bytes += piece;
  }
  return bytes;
}

}  // namespace ballast::server::testing
